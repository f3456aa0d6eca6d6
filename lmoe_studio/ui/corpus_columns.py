"""Which columns of a corpus hold the texts and the labels: what is offered, guessed, and asked."""

from pathlib import Path
from tempfile import TemporaryDirectory

from lmoe_studio.errors import DataError
from lmoe_studio.text_rows import column_names, column_samples
from lmoe_studio.tracing.corpus_files import CorpusFile
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.pasted import write_pasted

AUTOMATIC, NO_LABELS = "(automatic)", "(none)"
_TEXTS = "text"
_LABELS = ("label", "skill", "category", "class", "topic")


def given_corpus(pasted: str, uploaded: str | None, folder: Path | None = None) -> Path | None:
    """The file with the texts someone gave; pasted ones are written down in `folder`."""
    if uploaded:
        return Path(uploaded)
    return write_pasted(pasted, folder) if pasted.strip() and folder is not None else None


def columns_of(pasted: str, uploaded: str | None) -> dict[str, str]:
    """The columns of what someone gave, each with the beginning of a cell.

    Raises:
        DataError: it cannot be read.
    """
    with TemporaryDirectory() as folder:
        path = given_corpus(pasted, uploaded, Path(folder))
        return column_samples(path) if path else {}


def choices(columns: dict[str, str]) -> list[tuple[str, str]]:
    """Columns for a list to choose from: what is shown, and the column."""
    return [(clean(f"{name}: {cell}" if cell else name), name) for name, cell in columns.items()]


def must_choose(columns: dict[str, str]) -> bool:
    """Whether nothing says which column holds the texts."""
    return bool(columns) and _TEXTS not in columns


def chosen_corpus(path: Path, text: str | None, label: str | None) -> CorpusFile:
    """The corpus with the columns that were chosen; those left open go by their usual names.

    Raises:
        DataError: no text column was chosen, and none has the usual name; names those there are.
    """
    columns = column_names(path)
    if text in (None, AUTOMATIC):
        if columns and _TEXTS not in columns:
            raise DataError(which_column(column_samples(path)))
        text = _TEXTS
    if label in (None, AUTOMATIC):
        label = next((name for name in _LABELS if name in columns and name != text), None)
    return CorpusFile(path, text or _TEXTS, None if label == NO_LABELS else label)


def which_column(columns: dict[str, str]) -> str:
    """The question which column holds the texts."""
    there = ", ".join(f"{name} ({cell})" if cell else name for name, cell in columns.items())
    return f"There is no column 'text'; choose the one that holds the texts. There is {there}."
