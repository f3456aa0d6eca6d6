"""The bar that gives what a tab shows as a file: every format says how large it is, and can be stopped.

It tells of itself how far it is, so that a tab needs nothing but a place for it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, TypedDict

import gradio as gr

from lmoe_studio.errors import LMoEError
from lmoe_studio.ui.components.drawn import build_drawn
from lmoe_studio.ui.exports.exportable import NAMES, Exportable, Format
from lmoe_studio.ui.exports.files import formats_of, sizes, write_file
from lmoe_studio.ui.page import Page, user_of
from lmoe_studio.ui.runs import in_background

Find = Callable[[str, object], Mapping[str, Exportable]]
"""A user, and what the browser keeps of a result, to what can be exported of it, each by what it is
called; nothing where the result is gone."""
_GONE = "The Studio has let go of this; run it again, then export it."


class Offer(TypedDict):
    """Something that can be exported."""

    name: str
    row: str
    """What one row is."""
    formats: list[tuple[str, str, str]]
    """Each as its id, its name, and how large it is in words."""


class Told(TypedDict, total=False):
    """How far a file is, or how it ended."""

    words: str
    share: float
    """0 to 1, while it is being written."""
    run: str
    """What `stop` names."""
    is_problem: bool


def build_bar(**kwargs: Any) -> gr.HTML:
    """A bar, empty until there is something to export."""
    return build_drawn("exports", events=("export", "stop"), answers=("told",), **kwargs)


def wire_bar(page: Page, bar: gr.HTML, key: Any, find: Find) -> None:
    """Let a bar offer, and write, what a component holds the key of."""

    def _on_key(held: object, request: gr.Request) -> list[Offer]:
        return [_offer(name, each) for name, each in find(user_of(request), held).items()]

    def _on_stop(event: gr.EventData, request: gr.Request) -> None:
        said = event._data
        page.runs.stop(user_of(request), said.get("run") if isinstance(said, dict) else None)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    key.change(_on_key, key, bar, queue=False, **quiet)
    bar.stop(_on_stop, None, None, queue=False, **quiet)
    made = bar.export(_exporter(page, find), key, [bar, page.download], **quiet)
    page.hand_over(made)


def _exporter(page: Page, find: Find) -> Callable[..., Any]:
    def _on_export(
        held: object, event: gr.EventData, request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        user, asked = user_of(request), _read(event._data)
        export = find(user, held).get(asked[0]) if asked else None
        if export is None or asked is None or asked[1] not in formats_of(export):
            yield _told(words=_GONE, is_problem=True), None
            return
        with (
            page.runs.running(user) as (run, stop),
            TemporaryDirectory(prefix="lmoe-export-") as place,  # Gradio takes a copy of the file
        ):
            try:
                file = yield from _written(export, asked[1], Path(place), run, stop)
                yield _told(words="" if file else "Stopped: no file was written."), file
            except (LMoEError, OSError) as error:
                yield _told(words=f"The export failed: {error}", is_problem=True), None

    return _on_export


def _written(
    export: Exportable, kind: Format, folder: Path, run: str, stop: Event
) -> Iterator[tuple[Any, Any]]:
    """Tell the bar how far the file is, and give its path; None where it was stopped."""
    share = [0.0]

    def work() -> str | None:
        path = write_file(
            export, kind, folder,
            on_progress=lambda done: share.__setitem__(0, done), should_stop=stop.is_set,
        )  # fmt: skip
        return str(path) if path else None

    going, words = in_background(work, stop), f"Writing {NAMES[kind]}"
    yield _told(words=words, share=0.0, run=run), None
    while True:
        try:
            seconds = next(going)
        except StopIteration as end:
            return end.value
        try:
            yield _told(words=f"{words}, {seconds:.0f} s", share=share[0], run=run), gr.skip()
        except GeneratorExit:
            going.close()
            raise


def _read(said: Any) -> tuple[str, Format] | None:
    """Which export a browser asks for, and as what; None for nonsense."""
    if not isinstance(said, dict):
        return None
    name, kind = said.get("name"), said.get("format")
    known: Format | None = next((each for each in NAMES if each == kind), None)
    return (name, known) if isinstance(name, str) and known else None


def _offer(name: str, export: Exportable) -> Offer:
    found = sizes(export)
    return {
        "name": name,
        "row": export.row,
        "formats": [
            (kind, NAMES[kind], f"about {_in_units(found[kind])}" if kind in found else "")
            for kind in formats_of(export)
        ],
    }


def _told(**told: Any) -> dict[str, Any]:
    return gr.update(told=Told(**told))


def _in_units(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{max(1, size / 1e3):,.0f} kB"
