"""Texts with labels, from a file or from memory: a few at a time, within bounds."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from lmoe_studio.errors import DataError, did_you_mean
from lmoe_studio.sources.rows import COLUMNS, MAX_TEXT, has_layout, is_empty, text_row
from lmoe_studio.text_rows import read_rows, sha256

MAX_CORPUS = 2**30  # characters of all texts; a small Parquet file can unpack to any size


@dataclass(frozen=True)
class LabelledText:
    """One text of a corpus, and the label it came with."""

    text: str
    label: str | None = None
    turns: tuple[tuple[str, str], ...] = ()
    """(role, text) of a conversation, which the base's chat template puts together."""
    columns: tuple[str, ...] = ()
    """What it was read from."""
    where: str = ""
    """File and line that it stands in, of a file."""


@dataclass(frozen=True)
class CorpusFile:
    """A file of texts (.jsonl, .csv, .parquet, or .txt with a text a line), or a saved dataset.

    Where no other column was named and a row's `text` is empty or not there, as in files that were
    united, pairs and conversations are found by their usual columns (`sources.rows`). A pair is read
    as training reads it, the answer on a new line.
    """

    path: Path
    text_column: str = "text"
    label_column: str | None = None
    name: str | None = None
    """What whoever asked calls it, if not by its path."""

    @property
    def columns(self) -> list[str]:
        """Those that may hold a text or a label."""
        usual = COLUMNS if self.text_column == "text" else ()
        return [self.text_column, *usual, *([self.label_column] if self.label_column else [])]

    def __iter__(self) -> Iterator[LabelledText]:
        """The texts that are not blank.

        Raises:
            DataError: names the file, the line, and what is wrong with it.
        """
        plain = self.path.suffix.lower() == ".txt"
        total = 0
        for where, row in read_rows(self.path, self.columns):
            item = self.item({self.text_column: row["text"]} | row if plain else row, where)
            total += len(item.text)
            if total > MAX_CORPUS:
                raise DataError(
                    f"{where}: more than {MAX_CORPUS:,} characters of text; split the file."
                )
            if item.text.strip():
                yield item

    def item(self, row: dict[str, Any], where: str) -> LabelledText:
        """The text of a row, blank ones too. Raises DataError: it holds none."""
        found = None
        if self.text_column == "text" and is_empty(row.get("text")) and has_layout(row):
            found = text_row(row, where)
        text = "\n".join(part for _, part in found.parts) if found else self._text(row, where)
        label = None
        if self.label_column:
            label = _label(row[self._known(self.label_column, row, where)], where)
        if found is None:
            return LabelledText(text, label, columns=(self.text_column,), where=where)
        turns = found.parts if found.kind == "messages" else ()
        return LabelledText(text, label, turns, found.columns, where)

    def sha256(self) -> str:
        """Of the file's bytes."""
        return sha256(self.path)

    def _known(self, column: str, row: dict[str, Any], where: str) -> str:
        if column not in row:
            known = did_you_mean(column, map(str, row))
            option = "text_column" if column == self.text_column else "label_column"
            raise DataError(
                f"{where}: there is no column '{column}'; {known} Name another with "
                f"{option} (--{option.replace('_', '-')})."
            )
        return column

    def _text(self, row: dict[str, Any], where: str) -> str:
        text = row[self._known(self.text_column, row, where)]
        if is_missing(text):
            return ""
        if not isinstance(text, str):
            raise DataError(
                f"{where}: '{self.text_column}' is {type(text).__name__}, not text; name the column "
                "that holds the texts."
            )
        if len(text) > MAX_TEXT:
            raise DataError(f"{where}: longer than {MAX_TEXT:,} characters of text; split it.")
        return text


@dataclass(frozen=True)
class CorpusTexts:
    """Texts in memory, with or without labels: lists, columns of data frames, arrays, generators.

    A missing text (None, NaN, NA) is passed over as a blank one is; a missing label is no label.

    Raises:
        DataError: they are no texts, or the labels are not as many.
    """

    texts: Iterable[str]
    labels: Iterable[object] | None = None

    def __post_init__(self) -> None:
        texts = _listed(self.texts, "texts")
        labels = [None] * len(texts) if self.labels is None else _listed(self.labels, "labels")
        if len(labels) != len(texts):
            raise DataError(f"{len(texts)} texts came with {len(labels)} labels; give one a text.")
        object.__setattr__(self, "texts", texts)  # a generator gives its texts only once
        object.__setattr__(self, "labels", labels)

    def __iter__(self) -> Iterator[LabelledText]:
        for number, (text, label) in enumerate(
            zip(self.texts, self.labels or (), strict=True), start=1
        ):
            if is_missing(text):
                continue
            if not isinstance(text, str):
                raise DataError(f"Text {number} is {type(text).__name__}, not a string.")
            if len(text) > MAX_TEXT:
                raise DataError(f"Text {number} is longer than {MAX_TEXT:,} characters; split it.")
            if text.strip():
                yield LabelledText(str(text), _label(label, f"Text {number}"))

    def sha256(self) -> str:
        """Of the texts and labels."""
        return hashlib.sha256(
            json.dumps([[item.text, item.label] for item in self]).encode()
        ).hexdigest()


Corpus = CorpusFile | CorpusTexts


@dataclass(frozen=True)
class Survey:
    """What is in a corpus, found by reading it once before anything runs."""

    texts: int
    characters: int
    labels: dict[str, int]
    """How many texts have each label; texts without one are not counted."""
    sha256: str
    columns: tuple[str, ...] = ()
    """What the texts were read from."""


def survey(corpus: Corpus) -> Survey:
    """Read a corpus through. Raises DataError for whatever is wrong with it, or if it is empty."""
    texts, characters, labels, columns = 0, 0, dict[str, int](), dict[str, None]()
    for item in corpus:
        texts += 1
        columns |= dict.fromkeys(item.columns)
        characters += len(item.text)
        if item.label is not None:
            labels[item.label] = labels.get(item.label, 0) + 1
    if not texts:
        name = corpus.name or corpus.path if isinstance(corpus, CorpusFile) else "The corpus"
        raise DataError(f"{name} holds no text; give it at least one that is not blank.")
    return Survey(texts, characters, labels, corpus.sha256(), tuple(columns))


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, NA or NaT."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _label(value: object, where: str) -> str | None:
    """A label as text; None where there is none (missing, or blank)."""
    if is_missing(value):
        return None
    try:
        label = str(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        raise DataError(
            f"{where}: its label is a number of thousands of digits; give a name."
        ) from None
    return label.encode("utf-8", "replace").decode() if label.strip() else None


def _listed(values: Iterable[object], what: str) -> list[Any]:
    """The values of whatever holds a column."""
    is_table = hasattr(type(values), "columns") or isinstance(values, Mapping)
    if is_table or isinstance(values, str | bytes):
        raise DataError(
            f"Expected the {what} one by one, as a list or a column, and got "
            f"{type(values).__name__}; of a table give one column, for example frame['text']."
        )
    # Arrow's arrays and torch's tensors hold their own kinds of scalars.
    to_list = values.tolist if isinstance(values, Tensor) else getattr(values, "to_pylist", None)
    try:
        items = iter(to_list() if to_list else values)
    except TypeError:
        raise DataError(
            f"Expected the {what} as a list or a column, and got {type(values).__name__}."
        ) from None
    return list(items)
