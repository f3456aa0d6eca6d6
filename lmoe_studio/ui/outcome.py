"""Tracing a text for a page: every way it can end is an Outcome, none is an exception."""

import logging
import time
from dataclasses import dataclass
from secrets import token_hex
from threading import Event

from lmoe_studio.errors import ContextLengthError, LMoEError, TextError
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.ui import panels
from lmoe_studio.ui.conversation import read_as
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


class Reading:
    """How far a text is read, and the wish to stop; one thread reads it, another looks."""

    def __init__(self, stop: Event) -> None:
        self.stop = stop
        self.read = self.total = 0
        """Tokens; the total is 0 until it is known."""

    def on_progress(self, read: int, total: int) -> None:
        self.read, self.total = read, total


def trace_text(
    state: SourceState, text: str, *, max_tokens: int | None = None, reading: Reading | None = None
) -> Outcome:
    """Trace a text with the studio there is; every failure is a sentence.

    A text that was stopped has the trace of what was read until then.
    """
    reading = reading or Reading(Event())
    if state.studio is None:
        return Outcome(panels.status_line("Waiting for the model", tone="loading"))
    if not text.strip():
        return _refused("Nothing to trace", "Write a text above, or take one of the examples.")
    started = time.perf_counter()
    try:
        given = read_as(text, state.studio)
        trace = state.studio.trace(
            given.text,
            max_tokens=max_tokens,
            contributions=True,
            on_progress=reading.on_progress,
            should_stop=reading.stop.is_set,
        )
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
    if len(trace) >= reading.total:
        return Outcome(panels.status_line(status), trace, given.note)
    part = (
        f"Shown are the first {len(trace):,} of {reading.total:,} tokens, which were read before."
    )
    notice = panels.panel("note", "Stopped", part)
    return Outcome(panels.status_line(f"Stopped · {status}"), trace, notice)


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
