"""Rows of datasets, through the library `datasets`, which is imported when one is opened.

It runs no code of a dataset: it has known no scripts since its version 4. Of its readers only those
of plain formats are let near a folder, as others may unpickle.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmoe_studio.errors import DataError, HubError, did_you_mean
from lmoe_studio.plain_data import PlainDataError, read_json
from lmoe_studio.sources.named import DatasetSource, GivenDataset

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Rows = Iterator[tuple[str, dict[str, Any]]]
_READERS = {"json", "csv", "parquet", "arrow", "text"}
_STATE, _INFO, _PARTS = "state.json", "dataset_info.json", "dataset_dict.json"
_FEATURES = {
    "Value", "ClassLabel", "List", "LargeList", "Sequence", "Translation",
    "TranslationVariableLanguages", "Array2D", "Array3D", "Array4D", "Array5D", "Audio", "Image",
    "Video", "Pdf", "Json",
}  # fmt: skip


def is_saved(folder: Path) -> bool:
    """Whether a folder is what `save_to_disk` has written, of one split or of several."""
    return is_saved_split(folder) or (folder / _PARTS).is_file()


def is_saved_split(folder: Path) -> bool:
    """Whether a folder is one dataset that `save_to_disk` has written."""
    return (folder / _STATE).is_file() and (folder / _INFO).is_file()


def saved_rows(folder: Path, columns: Collection[str] | None = None) -> Rows:
    """The rows of a folder that `save_to_disk` has written.

    Args:
        folder: of one split; of several, `train` or the only one is taken.
        columns: read only these, as far as there are; of the others the names are given.

    Raises:
        DataError: it is none, is damaged, or has several splits.
    """
    yield from _rows(_load_saved(folder, None), str(folder), columns)


def saved_columns(folder: Path) -> list[str]:
    """Names of its columns. Raises DataError as `saved_rows`."""
    return list(_load_saved(folder, None).column_names)


def dataset_rows(
    source: DatasetSource | GivenDataset, columns: Collection[str] | None = None
) -> Rows:
    """The rows of a dataset that was named or given, under the usual names of its columns.

    Args:
        source: which, and how much of it.
        columns: read only these, as far as there are; of the others the names are given.

    Raises:
        HubError: the hub cannot be reached, or has no such dataset.
        DataError: there is no such split or column, or its files are of a kind that is not read.
    """
    if isinstance(source, GivenDataset):
        dataset = _split_of(source.dataset, None, str(source))
    else:
        dataset = _opened(source)
    yield from _rows(dataset, str(source), columns, renamed=source.columns, most=source.take)


def _opened(source: DatasetSource) -> "Dataset | IterableDataset":
    folder = Path(source.dataset)
    if not source.looks_local:
        return _from_hub(source)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; a dataset of the hub is named user/name.")
    if is_saved(folder):
        return _load_saved(folder, source.split)
    return _streamed(source, None)


def _from_hub(source: DatasetSource) -> "IterableDataset":
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    name = source.dataset
    try:  # asked first, as the library tries again for half a minute where there is no network
        found = HfApi().dataset_info(name, revision=source.revision, timeout=20)
    except GatedRepoError:
        raise HubError(
            f"The dataset '{name}' asks for its terms to be accepted; do so on its page, then "
            "`hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise HubError(
            f"There is no dataset '{name}' here as a folder, nor on the Hugging Face hub, or it is "
            "private; check the name, or `hf auth login`."
        ) from None
    except Exception as error:  # the library, and the transport below it, have many kinds
        raise HubError(
            f"There is no folder '{name}', and the Hugging Face hub could not be asked for that "
            f"dataset ({_first_line(error)}); check the name, the revision and the network."
        ) from None
    return _streamed(source, found.sha)


def _streamed(source: DatasetSource, revision: str | None) -> "IterableDataset":
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(source.dataset, source.config, revision=revision)
        reader = type(builder).__module__.rpartition(".")[2]
        if reader not in _READERS:
            raise DataError(
                f"{source}: its files are of the kind '{reader}', which is not read here; expected "
                "JSON, CSV, Parquet, Arrow or text."
            )
        splits = builder.as_streaming_dataset()
    except DataError:
        raise
    except Exception as error:  # of a config, a split or a file that is not there: many kinds
        raise DataError(f"{source} cannot be opened: {_first_line(error)}.") from None
    return _split_of(splits, source.split, str(source))


def _load_saved(folder: Path, split: str | None) -> "Dataset":
    if not is_saved(folder):
        raise DataError(
            f"{folder} is a folder, and none that `save_to_disk` has written; name its files, or "
            f"read it as a dataset (hf:{folder})."
        )
    if (folder / _PARTS).is_file():
        names = _plain(folder / _PARTS).get("splits")
        there = [n for n in names if _is_name(n)] if isinstance(names, list) else []
        return _load_saved(folder / _chosen(there, split, str(folder)), None)
    state = _plain(folder / _STATE)
    files = state.get("_data_files")
    if not isinstance(files, list) or not all(
        isinstance(one, dict) and _is_name(one.get("filename")) for one in files
    ):
        raise DataError(f"{folder / _STATE}: expected files of this folder in `_data_files`.")
    _require_plain_features(_plain(folder / _INFO).get("features"), folder)
    from datasets import load_from_disk

    try:
        return load_from_disk(str(folder.absolute()))  # pyright: ignore[reportReturnType]
    except Exception as error:  # of files that are damaged, or of another version: many kinds
        raise DataError(f"{folder} cannot be read: {_first_line(error)}.") from None


def _rows(
    dataset: "Dataset | IterableDataset",
    name: str,
    columns: Collection[str] | None,
    *,
    renamed: dict[str, str] | None = None,
    most: int | None = None,
) -> Rows:
    number = 0
    try:
        named = None if _is_transformed(dataset) else dataset.column_names
        there = named or list(next(iter(dataset), {}))
        for usual, own in (renamed or {}).items():
            if own not in there:
                raise DataError(f"{name}: there is no column '{own}'; {did_you_mean(own, there)}")
            dataset = dataset.rename_column(own, usual)
            there = [usual if column == own else column for column in there]
        wanted = [one for one in there if columns is None or one in columns]
        if not wanted:
            yield name, dict.fromkeys(there)
            return
        labels = {n: f for n, f in (dataset.features or {}).items() if hasattr(f, "int2str")}
        all_names = dict.fromkeys(there)
        for number, row in enumerate(_as_python(dataset, wanted, most), start=1):
            for column in labels.keys() & row.keys():
                if isinstance(row[column], int):
                    row[column] = labels[column].names[row[column]] if row[column] >= 0 else None
            yield f"{name}, row {number:,}", all_names | row
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # of a file that is damaged, or a network that fails: many kinds
        place = f"{name}, after row {number:,}"
        raise DataError(f"{place}: it cannot be read further ({_first_line(error)}).") from None


def _as_python(
    dataset: "Dataset | IterableDataset", wanted: Sequence[str], most: int | None
) -> Iterator[dict[str, Any]]:
    if not _is_transformed(dataset):
        dataset = dataset.select_columns(list(wanted)).with_format(None)
    for number, row in enumerate(dataset):
        if number == most:
            return
        yield {name: row[name] for name in wanted if name in row}


def _is_transformed(dataset: "Dataset | IterableDataset") -> bool:
    """Whether somebody's own function makes the rows when they are read."""
    own = getattr(dataset, "format", None)  # a stream tells of none
    return bool(own) and own["type"] == "custom"


def _split_of(dataset: Any, split: str | None, name: str) -> Any:
    return dataset[_chosen(list(dataset), split, name)] if isinstance(dataset, dict) else dataset


def _chosen(there: list[str], split: str | None, name: str) -> str:
    chosen = split or ("train" if "train" in there or len(there) != 1 else there[0])
    if chosen in there:
        return chosen
    if not split:
        raise DataError(f"{name} has the splits {', '.join(there) or 'none'}; name one of them.")
    raise DataError(f"{name}: there is no split '{split}'; {did_you_mean(split, there)}")


def _require_plain_features(features: Any, folder: Path) -> None:
    """Kinds of columns are made by their names: only those that are known are let through."""
    level = [features]
    while level:
        for one in level:
            kind = one.get("_type") if isinstance(one, dict) else None
            if isinstance(kind, str) and kind not in _FEATURES:
                raise DataError(
                    f"{folder}: a column is of the kind '{kind[:60]}', which is not read here."
                )
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]


def _plain(file: Path) -> dict[str, Any]:
    try:
        values = read_json(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from None
    except PlainDataError as error:
        raise DataError(f"{file}: no sound JSON ({error.reason}).") from None
    if not isinstance(values, dict):
        raise DataError(f"{file}: expected an object, got {type(values).__name__}.")
    return values


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and Path(value).name == value and value not in ("", ".", "..")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200].rstrip(".")
