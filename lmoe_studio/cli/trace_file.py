"""The file that a command writes a trace to."""

from pathlib import Path
from typing import TYPE_CHECKING

from lmoe_studio.cli.destination import require_file_place
from lmoe_studio.errors import StorageError

if TYPE_CHECKING:
    from lmoe_studio.tracing.records import RoutingTrace


def require_trace_name(out: Path | None) -> None:
    """Asked before the model is loaded. Raises: StorageError for a name that cannot be written."""
    if out is not None and out.suffix not in (".parquet", ".safetensors", ".csv"):
        raise StorageError(f"--out {out.name}: end the name in .parquet, .safetensors or .csv.")
    require_file_place(out)


def write_trace(trace: "RoutingTrace", out: Path) -> None:
    """Write .parquet, .safetensors or .csv.

    Raises: StorageError where it cannot be written.
    """
    from analysis import routing_frame
    from analysis.spreadsheet import write_csv
    from lmoe_studio.tracing.files import save_trace
    from lmoe_studio.whole import whole_file

    if out.suffix != ".csv":
        save_trace(trace, out)
        return
    try:
        with whole_file(out) as staged:
            write_csv(routing_frame(trace), staged)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror or error}.") from None
