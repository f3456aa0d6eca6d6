"""A corpus of whatever a person names or gives: texts, a file, a saved dataset, one of the hub."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lmoe_studio.errors import ConfigError
from lmoe_studio.sources.kept import kept_rows
from lmoe_studio.sources.named import DatasetSource, GivenDataset, Source, as_source, is_dataset
from lmoe_studio.tracing.corpus_files import Corpus, CorpusFile, CorpusTexts

CorpusLike = Path | str | DatasetSource | Iterable[str]
"""Texts one by one, a file or folder, `hf:user/name`, or an object of the library `datasets`."""


@contextmanager
def opened_corpus(
    given: CorpusLike,
    *,
    labels: Iterable[object] | None = None,
    text_column: str = "text",
    label_column: str | None = None,
    keep_in: Path | None = None,
) -> Iterator[Corpus]:
    """The corpus, as long as it is read.

    Args:
        given: the texts, or where they are.
        labels: of texts that are given.
        text_column: of a file or dataset; where there is no `text`, the usual columns are found.
        label_column: of a file or dataset.
        keep_in: a folder for the rows of a dataset, which a run that goes on reads again; None
            forgets them.

    Raises:
        ConfigError: labels came for a file, or the name is none.
        HubError, DataError, StorageError: the rows of a dataset cannot be had or kept.
    """
    source = _source(given)
    if source is None:
        yield CorpusTexts(given, labels)  # pyright: ignore[reportArgumentType]  (texts it is)
        return
    if labels is not None:
        raise ConfigError("Labels go with texts; for a file or dataset name its label_column.")
    if isinstance(source, Path):
        yield CorpusFile(source, text_column, label_column)
        return
    with ExitStack() as held:
        folder = keep_in or Path(held.enter_context(TemporaryDirectory(prefix="lmoe-rows-")))
        named = CorpusFile(Path(str(source)), text_column, label_column)
        file = kept_rows(source, folder, named.columns, check=named.item)
        yield CorpusFile(file, text_column, label_column, name=str(source))


def _source(given: CorpusLike) -> Source | None:
    if not (isinstance(given, str | Path | DatasetSource | GivenDataset) or is_dataset(given)):
        return None
    try:
        source = as_source(given)
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    return source.relative_to(Path.cwd()) if isinstance(source, DatasetSource) else source
