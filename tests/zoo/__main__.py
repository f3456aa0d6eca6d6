"""`make models`: every check over every base of the zoo, written down as docs/models.md."""

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

from transformers.utils import logging

from lmoe_studio.errors import LMoEError
from zoo.bases import ALL
from zoo.checks import keep, run
from zoo.page import page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bases", nargs="*", default=ALL, help="Some of them; all if none is named.")
    parser.add_argument("--json", type=Path, help="Keep what was found, a line a base.")
    parser.add_argument("--page", type=Path, help="Write the table there.")
    chosen = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    results = {}
    for name in chosen.bases:
        results[name] = of_base(name)
        line = json.dumps({name: results[name]})
        print(line, flush=True)
        if chosen.json:
            with chosen.json.open("a") as file:
                file.write(line + "\n")
    if chosen.page:
        chosen.page.write_text(page(results), encoding="utf-8")


def of_base(name: str) -> dict[str, float | str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            kept = keep(name, Path(folder))
        except LMoEError as error:
            return {"refused": str(error).replace(f"{folder}/", "")}
        except Exception as error:
            return {"broken": f"{type(error).__name__}: {error}"[:400]}
        return run(kept)


if __name__ == "__main__":
    sys.exit(main())
