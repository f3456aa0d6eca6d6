"""Tracing a text for a page: every way it can end is an Outcome, none is an exception."""

import logging
import time
from dataclasses import dataclass
from secrets import token_hex

from lmoe_studio.errors import ContextLengthError, LMoEError, TextError
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.ui import panels
from lmoe_studio.ui.source import SourceState

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a wish to trace a text: a trace, or a sentence that says why not."""

    status: str
    trace: RoutingTrace | None = None
    notice: str = ""
    cut_to: int | None = None
    """How many tokens can be traced, where the text has more."""


def trace_text(state: SourceState, text: str, *, max_tokens: int | None = None) -> Outcome:
    """Trace a text with the studio there is; every failure is a sentence."""
    if state.studio is None:
        return Outcome(panels.status_line("Waiting for the model", tone="loading"))
    if not text.strip():
        return _refused("Nothing to trace", "Write a text above, or take one of the examples.")
    started = time.perf_counter()
    try:
        trace = state.studio.trace(text, max_tokens=max_tokens, contributions=True)
    except ContextLengthError as error:
        advice = "Shorten it, or trace only its beginning."
        sentence = (
            f"The text has {error.count} tokens and this model reads at most {error.limit:,}. "
        )
        return _refused("The text is too long", sentence + advice, cut_to=error.limit)
    except TextError as error:
        return _refused("Nothing to trace", str(error))
    except LMoEError as error:
        return _refused("The text could not be traced", str(error))
    except Exception as error:
        return _failed(error)
    seconds = time.perf_counter() - started
    status = f"Traced {len(trace):,} tokens in {seconds:.2f} s · {trace.bank}"
    return Outcome(panels.status_line(status), trace)


def _refused(title: str, sentence: str, *, cut_to: int | None = None) -> Outcome:
    notice = panels.panel("problem", title, sentence)
    return Outcome(panels.status_line(title, tone="problem"), notice=notice, cut_to=cut_to)


def _failed(error: Exception) -> Outcome:
    """A fault of ours: a number for the person, the traceback for the log."""
    incident = token_hex(3)
    _log.error("incident %s while tracing", incident, exc_info=error)
    if type(error).__name__ == "OutOfMemoryError":
        return _refused("Out of memory", "The device has no room for this text; shorten it.")
    return _refused(
        "The text could not be traced",
        f"Something went wrong inside; the log has the details under incident {incident}.",
    )
