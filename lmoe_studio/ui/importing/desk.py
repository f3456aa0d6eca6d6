"""ImportDesk: imports in the background, one at a time; each visitor sees the last of their own.

An import belongs to no page: it goes on when the page is closed, and a reload finds it again.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from lmoe_studio.errors import ConfigError, DataError, JobError, StorageError
from lmoe_studio.ui.importing.asked import AskedImport
from lmoe_studio.ui.importing.unpack import Room, lay_out
from lmoe_studio.ui.problems import explain

if TYPE_CHECKING:
    from lmoe_studio.base_models import BaseModel

_MOST_KEPT = 100
_STEPS_BESIDE = 5
"""Steps of an import besides one for each adapter, about."""


@dataclass(frozen=True)
class ImportState:
    """How far an import is, or how it ended."""

    id: str
    bank: str
    step: str = "Starting"
    """What it does at the moment; empty where it has ended."""
    steps: int = 0
    of_steps: int = 1
    is_stopping: bool = False
    was_stopped: bool = False
    taken: tuple[str, ...] = ()
    """The experts of the bank that was made; none where there is no bank."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why each adapter that was left out is no expert."""
    notes: tuple[str, ...] = ()
    """What was read otherwise than it stands in the files, a sentence each."""
    problem: tuple[str, str] | None = None
    """A title and a sentence: why there is no bank at all."""

    @property
    def is_over(self) -> bool:
        return not self.step


class ImportDesk:
    """Carries out imports.

    Args:
        banks: the folder that the banks are written to.
    """

    def __init__(self, banks: Callable[[], Path]) -> None:
        self._banks = banks
        self._lock = Lock()
        self._states: OrderedDict[str, ImportState] = OrderedDict()
        self._busy: tuple[str, Event] | None = None
        """Whose import is under way, and what stops it."""

    def of(self, user: str) -> ImportState | None:
        """The last import that a visitor asked for."""
        return self._states.get(user)

    def start(self, user: str, asked: AskedImport, beside: "BaseModel | None") -> None:
        """Begin an import. Raises JobError where one is under way."""
        stop = Event()
        with self._lock:
            if self._busy is not None:
                raise JobError(
                    "Another import is under way; let it end, or stop it, and try again."
                )
            self._busy = (user, stop)
        steps = len(asked.adapters) + _STEPS_BESIDE
        self._change(user, ImportState(token_hex(4), asked.bank, of_steps=steps))
        run = (user, asked, beside, stop)
        Thread(target=self._run, args=run, name="import-adapters", daemon=True).start()

    def stop(self, user: str) -> None:
        """Ask a visitor's import to end after the step that it is at."""
        with self._lock:
            if self._busy is not None and self._busy[0] == user:
                self._busy[1].set()
                self._states[user] = replace(self._states[user], is_stopping=True)

    def _change(self, user: str, state: ImportState) -> None:
        with self._lock:
            if state.is_over:
                self._busy = None
            self._states[user] = state
            self._states.move_to_end(user)
            while len(self._states) > _MOST_KEPT:
                self._states.popitem(last=False)

    def _run(self, user: str, asked: AskedImport, beside: "BaseModel | None", stop: Event) -> None:
        state = self._states[user]

        def tell(step: str) -> None:
            nonlocal state
            steps = min(state.steps + 1, state.of_steps)
            state = replace(state, step=step, steps=steps, is_stopping=stop.is_set())
            self._change(user, state)

        try:
            with TemporaryDirectory(prefix="lmoe-import-") as place:
                ended = self._import(asked, beside, Path(place), stop, state, tell)
        except Exception as error:
            ended = replace(state, problem=_explained(error, asked))
        self._change(user, replace(ended, step="", is_stopping=False))

    def _import(
        self,
        asked: AskedImport,
        beside: "BaseModel | None",
        place: Path,
        stop: Event,
        state: ImportState,
        tell: Callable[[str], None],
    ) -> ImportState:
        """Raises LMoEError where there can be no bank."""
        from lmoe_studio.importing import import_adapters, import_router  # noqa: PLC0415  (torch)

        router = import_router(asked.router, top_k=asked.top_k)
        tell("Unpacking the files")
        folders, refused = _laid_out(asked, place)
        if not folders:
            return replace(state, refused=refused)
        made = import_adapters(
            folders, self._banks() / asked.bank, base=asked.base, router=router,
            leave_out_refused=True, beside=beside, on_progress=tell, should_stop=stop.is_set,
        )  # fmt: skip
        if made is None:
            return replace(state, was_stopped=True)
        taken = made.bank.expert_names if made.bank is not None else ()
        return replace(state, taken=taken, refused=refused | made.refused, notes=made.notes)


def _laid_out(asked: AskedImport, place: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The folder of each adapter, and why there is none of the others."""
    room, folders, refused = Room(), dict[str, Path](), dict[str, str]()
    for number, given in enumerate(asked.adapters):
        try:
            found = lay_out(given, place / str(number), room)
        except DataError as error:
            refused[given.name] = str(error)
            continue
        for name, folder in found.items():
            if name in folders:
                refused[name] = f"Another adapter is named '{name}' too; give it a name of its own."
            else:
                folders[name] = folder
    return folders, refused


def _explained(error: Exception, asked: AskedImport) -> tuple[str, str]:
    if isinstance(error, OSError):
        reason = f"The files could not be unpacked ({error.strerror or error})."
        return "There is no room for the import", reason
    if isinstance(error, ConfigError | StorageError):
        return f"The bank {asked.bank} was not made", str(error)
    return explain(error)
