"""An Exportable as a file, and how large that would be."""

import io
import itertools
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from lmoe_studio.errors import StorageError
from lmoe_studio.ui.exports.exportable import NAMES, Exportable, Format, Pieces, RowFormat
from lmoe_studio.ui.exports.writers import WRITERS
from lmoe_studio.whole import whole_file

_ROWS = 100_000
_SAMPLE = 20_000  # rows that an estimate writes: the deflated size of fewer is too large


class _StoppedError(Exception):
    """Ends a file that is half written."""


def write_file(
    export: Exportable,
    kind: Format,
    folder: Path,
    *,
    on_progress: Callable[[float], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Write all of it into a folder, under a name made from its stem and the time.

    Args:
        export: what.
        kind: how; one of `formats_of`.
        folder: is there.
        on_progress: hears the share that is done, 0 to 1.
        should_stop: asked now and then.

    Returns:
        The file; None where it was stopped, and nothing is left.

    Raises:
        StorageError: it cannot be written.
    """
    path = folder / f"{export.stem}-{datetime.now():%Y%m%d-%H%M%S}.{kind}"
    try:
        with whole_file(path) as staged:
            with staged.open("wb") as file:
                if kind in export.documents:
                    _write_pieces(export.documents[kind], file, on_progress, should_stop)
                else:
                    _write_rows(export, cast(RowFormat, kind), file, on_progress, should_stop)
    except _StoppedError:
        return None
    except OSError as error:
        raise StorageError(f"{path.name} cannot be written: {error.strerror or error}.") from None
    return path


def formats_of(export: Exportable) -> list[Format]:
    """What it can be written as, in the order of the buttons."""
    return [kind for kind in NAMES if kind in WRITERS or kind in export.documents]


def sizes(export: Exportable) -> dict[Format, int]:
    """About how many bytes each format of rows takes, from its first rows.

    What a file says once, such as the names of its columns, counts once.
    """
    sample = next(export.batches(_SAMPLE), None)
    if sample is None or not len(sample):
        return {}
    found: dict[Format, int] = {}
    for kind in WRITERS:
        once, whole = (_size(kind, table) for table in (sample.schema.empty_table(), sample))
        found[kind] = round(once + (whole - once) / len(sample) * export.count)
    return found


def _write_rows(
    export: Exportable,
    kind: RowFormat,
    file: IO[bytes],
    on_progress: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> None:
    batches = export.batches(_ROWS)
    first = next(batches, None)
    if first is None:
        return
    done = 0
    with closing(WRITERS[kind](file, first.schema)) as writer:
        for batch in itertools.chain([first], batches):
            if should_stop():
                raise _StoppedError
            writer.write(batch)
            done += len(batch)
            on_progress(done / max(1, export.count))


def _write_pieces(
    pieces: Pieces,
    file: IO[bytes],
    on_progress: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> None:
    for done, piece in enumerate(pieces, start=1):
        if should_stop():
            raise _StoppedError
        file.write(piece().encode())
        on_progress(done / len(pieces))


def _size(kind: RowFormat, table: pa.Table) -> int:
    file = io.BytesIO()
    with closing(WRITERS[kind](file, table.schema)) as writer:
        writer.write(table)
    return file.tell()
