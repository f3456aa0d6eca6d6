"""StudioSource: where the page gets the loaded studio from, while it loads and after.

Torch and the model are imported in the loading thread only, so that the first page need not wait.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from lmoe_studio.config import EMBEDDED_BASE, Quantize
from lmoe_studio.errors import BankError, LMoEError

if TYPE_CHECKING:
    from lmoe_studio.studio import Studio

Loader = Callable[[str, Callable[[str], None]], Any]
"""Bank name or folder, and a listener for progress messages, to a Studio."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceState:
    """What there is at one moment. A bank that is loading leaves the one before in use."""

    studio: "Studio | None" = None
    bank: str = ""
    """The bank asked for last."""
    progress: str | None = None
    """What loading does at the moment; None when nothing is loading."""
    problem: str | None = None
    """Why the bank asked for last could not be loaded."""
    asker: str = ""
    """Who asked for it."""
    load: int = 0
    """How many loads there have been; the studio is of the last."""
    loaded_for: str = ""
    """Who asked for the studio's bank."""
    version: int = 0
    """Grows with every change, so that a page can tell whether it shows the newest."""

    @property
    def is_loading(self) -> bool:
        return self.progress is not None

    def loaded(self) -> "Studio":
        """The studio. Raises BankError where there is none yet, though the buttons are off then."""
        if self.studio is None:
            raise BankError("No bank is loaded yet; wait until one is.")
        return self.studio


class StudioSource:
    """Loads a studio in the background; one load at a time."""

    def __init__(self, load: Loader, list_banks: Callable[[], list[str]]) -> None:
        self._load = load
        self._list_banks = list_banks
        self._state = SourceState()
        self._lock = Lock()

    @property
    def state(self) -> SourceState:
        return self._state

    def banks(self) -> list[str]:
        """Names that can be loaded; only what was asked for until the first load is over."""
        state = self._state
        if state.studio is None and state.is_loading:
            return [state.bank]
        return self._list_banks()

    def bases(self) -> list[str]:
        """Base models that can be trained on by name: the embedded one and the studio's."""
        studio = self._state.studio
        return list(dict.fromkeys([EMBEDDED_BASE, *([studio.card.base] if studio else [])]))

    def start(self, bank: str, asker: str = "") -> bool:
        """Begin to load a bank for whoever asks; False where another load is under way."""
        with self._lock:
            if self._state.is_loading:
                return False
            self._change(bank=bank, asker=asker, progress="Starting…", problem=None)
        Thread(target=self._run, args=(bank,), name="load-studio", daemon=True).start()
        return True

    def _run(self, bank: str) -> None:
        try:
            studio = self._load(bank, lambda message: self._change(progress=message))
        except LMoEError as error:
            self._change(progress=None, problem=str(error))
        except Exception as error:
            _log.exception("could not load bank %r", bank)
            problem = f"Bank '{bank}' could not be loaded ({type(error).__name__}); see the log."
            self._change(progress=None, problem=problem)
        else:
            state = self._state
            self._change(studio=studio, progress=None, load=state.load + 1, loaded_for=state.asker)

    def _change(self, **changes: Any) -> None:
        self._state = replace(self._state, version=self._state.version + 1, **changes)


def model_source(device: str, quantize: Quantize | None = None) -> StudioSource:
    """A source that loads real banks onto a device, over a base that may be quantised."""

    def load(bank: str, on_progress: Callable[[str], None]) -> "Studio":
        from lmoe_studio.studio import Studio  # noqa: PLC0415  (brings torch: seconds)

        return Studio.load(
            bank,
            device=device,
            quantize=quantize,
            beside=source.state.studio,
            on_progress=on_progress,
        )

    def list_banks() -> list[str]:
        from lmoe_studio.studio import available_banks  # noqa: PLC0415

        return available_banks()

    source = StudioSource(load, list_banks)
    return source
