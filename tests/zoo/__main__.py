"""`make models`: every check over every base of the zoo, written down as docs/models.md."""

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

from transformers.utils import logging
from zoo.bases import ALL
from zoo.checks import keep, run

from lmoe_studio.errors import LMoEError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bases", nargs="*", default=ALL, help="Some of them; all if none is named.")
    parser.add_argument("--json", type=Path, help="Also keep what was found, a line a base.")
    chosen = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    for name in chosen.bases:
        found = of_base(name)
        print(json.dumps({name: found}), flush=True)
        if chosen.json:
            with chosen.json.open("a") as file:
                file.write(json.dumps({name: found}) + "\n")


def of_base(name: str) -> dict[str, float | str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            kept = keep(name, Path(folder))
        except LMoEError as error:
            return {"refused": str(error).replace(folder, "")}
        except Exception as error:
            return {"broken": f"{type(error).__name__}: {error}"[:400]}
        return run(kept)


if __name__ == "__main__":
    sys.exit(main())
