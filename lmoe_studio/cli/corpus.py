"""The texts that a command is to read, looked through before the model is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmoe_studio.cli.console import say


@contextmanager
def said_corpus(
    data: str, text_column: str, label_column: str | None, *, keep_in: Path | None = None
) -> Iterator[Path]:
    """The file or folder of a corpus, as long as it is read; what was found in it is said.

    Args:
        data: a file, a saved dataset, or hf:user/name.
        text_column: of the texts.
        label_column: of their labels.
        keep_in: a folder for the rows of a dataset; None forgets them.

    Raises:
        LMoEError: it cannot be had or read, or holds no text.
    """
    from lmoe_studio.tracing.corpus_files import CorpusFile, survey
    from lmoe_studio.tracing.corpus_sources import opened_corpus

    with opened_corpus(
        data, text_column=text_column, label_column=label_column, keep_in=keep_in
    ) as corpus:
        found = survey(corpus)
        assert isinstance(corpus, CorpusFile)  # a name was given, not texts
        columns = f": column{'s' if len(found.columns) > 1 else ''} {', '.join(found.columns)}"
        say(f"{found.texts:,} texts of {corpus.name or corpus.path}{columns}")
        yield corpus.path
