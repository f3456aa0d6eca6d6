"""Sentences for what went wrong while the Studio was at work: a title, and what to do."""

import logging
from secrets import token_hex

from lmoe_studio.errors import (
    ConfigError,
    ContextLengthError,
    DataError,
    JobError,
    LMoEError,
    OverflowedError,
    PlanError,
    StorageError,
    TextError,
)
from lmoe_studio.ui import panels
from lmoe_studio.ui.file_names import without_uploads

_log = logging.getLogger(__name__)
_TITLES: tuple[tuple[type[LMoEError], str], ...] = (
    (PlanError, "The plan cannot be used"),
    (ContextLengthError, "The text is too long"),
    (TextError, "Nothing to begin with"),
    (OverflowedError, "The numbers overflowed"),
    (ConfigError, "A setting is out of range"),
    (DataError, "The texts cannot be used"),
    (JobError, "The job cannot do that"),
    (StorageError, "The file could not be written"),
)


def problem_panel(error: Exception) -> str:
    """The panel for an error; a fault of ours gets a number, and its traceback goes to the log."""
    title, sentence = explain(error)
    return panels.panel("problem", title, sentence)


def explain(error: Exception) -> tuple[str, str]:
    """A title and a sentence for an error."""
    if isinstance(error, LMoEError):
        titles = (title for kind, title in _TITLES if isinstance(error, kind))
        return next(titles, "It did not work"), without_uploads(str(error))
    incident = token_hex(3)
    _log.error("incident %s", incident, exc_info=error)
    if type(error).__name__ == "OutOfMemoryError":
        return "Out of memory", "The device has no room for this; ask for fewer new tokens."
    sentence = f"Something went wrong inside; the log has the details under incident {incident}."
    return "It did not work", sentence
