"""Start the Studio: `python app.py`, with the options of `lmoe app`."""

import sys

from lmoe_studio.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "app")
    main()
