"""python -m lmoe_studio: the `lmoe` command."""

from lmoe_studio.cli import main

main()
