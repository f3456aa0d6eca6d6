"""Texts with labels, read from JSONL, CSV, Parquet or plain text: a few at a time, within bounds."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmoe_studio.errors import DataError, did_you_mean

MAX_TEXT = 1_000_000  # characters; a longer text, or line, is no text to trace but a broken file
MAX_CORPUS = 2**30  # characters of all texts; a small Parquet file can unpack to any size
_ROWS = 16  # of a Parquet file, unpacked at once


@dataclass(frozen=True)
class LabelledText:
    """One text of a corpus, and the label it came with."""

    text: str
    label: str | None = None


@dataclass(frozen=True)
class CorpusFile:
    """A file of texts: .jsonl, .csv, .parquet, or .txt with a text a line."""

    path: Path
    text_column: str = "text"
    label_column: str | None = None

    def __iter__(self) -> Iterator[LabelledText]:
        """The texts that are not blank.

        Raises:
            DataError: names the file, the line, and what is wrong with it.
        """
        read = _READERS.get(self.path.suffix.lower())
        if read is None:
            raise DataError(
                f"{self.path}: a corpus is a .jsonl, .csv, .parquet or .txt file, not "
                f"'{self.path.suffix}'."
            )
        total = 0
        try:
            for where, row in read(self):
                text = self._text(row, where)
                total += len(text)
                if total > MAX_CORPUS:
                    raise DataError(
                        f"{where}: more than {MAX_CORPUS:,} characters of text; split the file."
                    )
                if text.strip():
                    label = row[self.label_column] if self.label_column else None
                    yield LabelledText(text, _label(label))
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}.") from None
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path} is not UTF-8 text (byte {error.start}); save it as UTF-8."
            ) from None
        except pa.ArrowException:
            raise DataError(f"{self.path} is no Parquet file, or is damaged.") from None

    def sha256(self) -> str:
        """Of the file's bytes."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}.") from None

    def _text(self, row: dict[str, Any], where: str) -> str:
        for column in (self.text_column, self.label_column):
            if column is not None and column not in row:
                known = did_you_mean(column, map(str, row))
                raise DataError(f"{where}: there is no column '{column}'; {known}")
        text = row[self.text_column]
        if text is None:
            return ""
        if not isinstance(text, str):
            raise DataError(
                f"{where}: '{self.text_column}' is {type(text).__name__}, not text; name the column "
                "that holds the texts."
            )
        if len(text) > MAX_TEXT:
            raise DataError(f"{where}: the text is longer than {MAX_TEXT:,} characters; split it.")
        return text


@dataclass(frozen=True)
class CorpusTexts:
    """Texts in memory, with or without labels."""

    texts: Sequence[str]
    labels: Sequence[object] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.texts):
            raise DataError(
                f"{len(self.texts)} texts came with {len(self.labels)} labels; give one a text."
            )

    def __iter__(self) -> Iterator[LabelledText]:
        for number, (text, label) in enumerate(zip_longest(self.texts, self.labels or ()), start=1):
            if not isinstance(text, str):
                raise DataError(f"Text {number} is {type(text).__name__}, not a string.")
            if len(text) > MAX_TEXT:
                raise DataError(f"Text {number} is longer than {MAX_TEXT:,} characters; split it.")
            if text.strip():
                yield LabelledText(text, _label(label))

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


def survey(corpus: Corpus) -> Survey:
    """Read a corpus through. Raises DataError for whatever is wrong with it, or if it is empty."""
    texts, characters, labels = 0, 0, dict[str, int]()
    for item in corpus:
        texts += 1
        characters += len(item.text)
        if item.label is not None:
            labels[item.label] = labels.get(item.label, 0) + 1
    if not texts:
        name = corpus.path if isinstance(corpus, CorpusFile) else "The corpus"
        raise DataError(f"{name} holds no text; give it at least one that is not blank.")
    return Survey(texts, characters, labels, corpus.sha256())


def corpus_columns(path: Path) -> list[str]:
    """Names of the columns of a corpus file, from its first row; empty where it has none.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        try:
            return list(map(str, pq.read_schema(path).names))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
        except pa.ArrowException:
            raise DataError(f"{path} is no Parquet file, or is damaged.") from None
    rows = _READERS.get(path.suffix.lower(), _read_plain)(CorpusFile(path))
    try:
        return list(next(rows, ("", {}))[1])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from None


_Rows = Iterator[tuple[str, dict[str, Any]]]
"""Where a row stands, and its columns."""


def _read_jsonl(corpus: CorpusFile) -> _Rows:
    for number, line in _lines(corpus.path):
        if not line.strip():
            continue
        where = f"{corpus.path}, line {number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise DataError(f"{where}: no JSON ({reason}).") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with columns, got {type(row).__name__}.")
        yield where, row


def _read_csv(corpus: CorpusFile) -> _Rows:
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for number, line in _lines(corpus.path):  # noqa: B007 (read below, where a row ends)
            yield line

    reader = csv.DictReader(lines(), strict=True)
    try:
        for row in reader:
            where = f"{corpus.path}, line {number}"
            if None in row:
                raise DataError(f"{where}: more cells than the header has columns.")
            yield where, row
    except csv.Error as error:
        raise DataError(f"{corpus.path}, line {number}: no sound CSV ({error}).") from None


def _read_parquet(corpus: CorpusFile) -> _Rows:
    with corpus.path.open("rb") as file:
        names = pq.read_schema(file).names
        wanted = [corpus.text_column, *([corpus.label_column] if corpus.label_column else [])]
        if not set(wanted) <= set(names):
            yield f"{corpus.path}", dict.fromkeys(names)  # from which it is seen what is missing
            return
        # A text that stands once in the file and many times in the column is unpacked once.
        parquet = pq.ParquetFile(file, read_dictionary=[corpus.text_column])
        number = 0
        for batch in parquet.iter_batches(batch_size=_ROWS, columns=wanted):
            for row in zip(*(batch.column(name) for name in wanted), strict=True):
                number += 1
                values = dict(zip(wanted, (cell.as_py() for cell in row), strict=True))
                yield f"{corpus.path}, row {number}", values


def _read_plain(corpus: CorpusFile) -> _Rows:
    for number, line in _lines(corpus.path):
        yield f"{corpus.path}, line {number}", {corpus.text_column: line.rstrip("\r\n")}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers; a line is never longer than MAX_TEXT."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT + 1), ""), start=1):
            if len(line) > MAX_TEXT:
                raise DataError(
                    f"{path}, line {number}: longer than {MAX_TEXT:,} characters; "
                    "give one text a line."
                )
            if "\0" in line:
                raise DataError(f"{path}, line {number}: a binary file, not text.")
            yield number, line


def _label(value: object) -> str | None:
    """A label as text; None where there is none (null, NaN, blank)."""
    if value is None or value != value or not str(value).strip():
        return None
    return str(value)


_READERS: dict[str, Callable[[CorpusFile], _Rows]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_plain,
}
