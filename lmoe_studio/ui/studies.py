"""Studies made for pages: the corpus someone gives, its run, and what was found."""

import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from secrets import token_urlsafe
from tempfile import mkdtemp
from threading import Lock
from typing import TYPE_CHECKING
from weakref import finalize

from lmoe_studio.errors import DataError, TextError
from lmoe_studio.tracing.corpus_files import CorpusFile, survey
from lmoe_studio.ui.study import Study, study_of_run

if TYPE_CHECKING:
    from threading import Event

    from lmoe_studio.studio import Studio
    from lmoe_studio.tracing.corpus import CorpusProgress

MOST_CHARACTERS = 400_000
"""Of a corpus that a page studies; what is larger is for the command line."""
MOST_KEPT = 4


@dataclass(frozen=True)
class KeptStudy:
    """A study, and where its run is on disk."""

    folder: Path
    run: str
    study: Study
    code: str = ""
    """The same in pandas."""

    @property
    def runs(self) -> Path:
        return self.folder / "runs"


class _Stopped(Exception):
    pass


class StudyStore:
    """The newest studies, by (user, id); their folders go with them, and all when the store goes."""

    def __init__(self) -> None:
        self._studies: OrderedDict[tuple[str, str], KeptStudy] = OrderedDict()
        self._lock = Lock()

    def new_folder(self) -> Path:
        """A folder for a corpus, its run and its exports."""
        folder = self._place / token_urlsafe(12)
        folder.mkdir()
        return folder

    @cached_property
    def _place(self) -> Path:
        """A folder for all of them, made for the first."""
        place = mkdtemp(prefix="lmoe-studies-")
        finalize(self, shutil.rmtree, place, ignore_errors=True)
        return Path(place)

    def put(self, user: str, kept: KeptStudy) -> str:
        """Keep a study; the answer is its id."""
        key = token_urlsafe(16)
        with self._lock:
            self._studies[user, key] = kept
            while len(self._studies) > MOST_KEPT:
                shutil.rmtree(self._studies.popitem(last=False)[1].folder, ignore_errors=True)
        return key

    def get(self, user: str, key: object) -> KeptStudy | None:
        """A study of this user, or None."""
        return self._studies.get((user, key)) if isinstance(key, str) else None


def make_study(
    studio: "Studio",
    corpus: CorpusFile,
    folder: Path,
    *,
    max_tokens: int,
    stop: "Event",
    on_progress: "Callable[[CorpusProgress], None]",
    on_step: Callable[[str], None],
) -> KeptStudy | None:
    """Trace a corpus and study it; None where it was stopped.

    Raises:
        DataError, TextError: the corpus cannot be read, holds nothing, or is too large for a page.
    """
    found = survey(corpus)
    if found.characters > MOST_CHARACTERS:
        raise DataError(
            f"The corpus has {found.characters:,} characters and a page studies at most "
            f"{MOST_CHARACTERS:,}; `lmoe trace --data` and `lmoe report` take any number."
        )
    run = studio.trace_corpus(
        corpus.path,
        out=folder / "runs",
        text_column=corpus.text_column,
        label_column=corpus.label_column,
        max_tokens=max_tokens,
        on_progress=on_progress,
        should_stop=stop.is_set,
    )
    if not run.is_finished or stop.is_set():
        return None

    def step(name: str) -> None:
        if stop.is_set():
            raise _Stopped
        on_step(name)

    try:
        study = study_of_run(folder / "runs", run.run, on_step=step)
    except _Stopped:
        return None
    return KeptStudy(folder, run.run, study)


def pandas_code(corpus: CorpusFile, max_tokens: int, bank: str) -> str:
    """The same study outside the page."""
    label = f" --label-column {corpus.label_column!r}" if corpus.label_column else ""
    ask = "print(label_owners(frame))\nprint(specialisation(frame))" if label else ""
    return (
        f"# lmoe trace --bank {bank!r} --data {corpus.path.name!r} "
        f"--text-column {corpus.text_column!r}{label} \\\n"
        f"#     --max-tokens {max_tokens} --out runs/x\n"
        "import pandas as pd\n"
        "from analysis import expert_usage, label_owners, select, specialisation\n\n"
        'frame = select(pd.read_parquet("runs/x"), special_tokens=False)\n'
        f'print(expert_usage(frame, by=("layer",)))\n{ask}\n'
    )


def nothing_given() -> TextError:
    """What to say where there is no corpus."""
    return TextError("Paste some texts, one a line, or choose a file with them.")
