"""The workbench: token strip, heatmap, bars and legend around one selection, drawn in the browser.

Python sends one payload a trace. Every viewing act is answered in the page; only exact numbers of
the selected cell are asked for, by the event `pick`, and come back as the property `exact`; and, where
plans can be made, what the composer's would make of the trace: event `preview`, property `previewed`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from lmoe_studio.ui.components.drawn import build_drawn
from lmoe_studio.ui.payload import ExactCell, TracePayload, exact_cell, read_pick
from lmoe_studio.ui.preview import preview_plan
from lmoe_studio.ui.source import StudioSource
from lmoe_studio.ui.traces import TraceStore

_FIRST_STEPS = (
    "Write a text above, or take an example.",
    "Press Trace: the model reads the text once and records how every token was routed.",
    "Select tokens and layers here to see which experts were mixed, and how much.",
)


def build_workbench(
    *, steered: bool = False, steps: Sequence[str] = _FIRST_STEPS, **kwargs: Any
) -> gr.HTML:
    """An empty workbench; it has an event `pick` and is filled by `show_trace`.

    Args:
        steered: previews the composer's plan, and offers the selection to it as a scope.
        steps: what to do first, said while there is nothing to show.
        kwargs: Gradio's own.
    """
    empty = "Nothing written yet" if steered else "No trace yet"
    setup = {"steered": steered, "empty": empty, "steps": list(steps)}
    return build_drawn(
        "workbench",
        setup=setup,
        events=("pick", "seen", "preview"),
        answers=("exact", "previewed"),
        **kwargs,
    )


def show_trace(payload: TracePayload) -> dict[str, Any]:
    """The update that makes a workbench show a trace."""
    return gr.update(value=payload, visible=True)


def show_no_trace(why: str) -> dict[str, Any]:
    """The update that says why a trace that was there before is not shown again."""
    return gr.update(value={"gone": why})


def show_exact(cell: ExactCell) -> dict[str, Any]:
    """The update that brings the exact numbers of the selected cell."""
    return gr.update(exact=cell)


def show_gone(key: str) -> dict[str, Any]:
    """The update that says the server holds a trace no longer."""
    return gr.update(exact={"id": key, "gone": True})


def answer_preview(
    traces: TraceStore, source: StudioSource
) -> Callable[[gr.EventData, gr.Request], dict[str, Any]]:
    """The handler of a workbench's `preview`: what a plan would make of the trace it shows."""

    def _on_preview(event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        user = request.username or ""
        return gr.update(
            previewed=preview_plan(event._data, traces, source.state.studio, user=user)
        )

    return _on_preview


def answer_pick(traces: TraceStore) -> Callable[[gr.EventData, gr.Request], dict[str, Any]]:
    """The handler of a workbench's `pick`: exact numbers of the cell asked for."""

    def _on_pick(event: gr.EventData, request: gr.Request) -> dict[str, Any]:
        asked = event._data
        key = asked.get("id") if isinstance(asked, dict) else None
        trace = traces.get(request.username or "", key)
        cell = read_pick(asked, trace) if trace else None
        if trace is None or cell is None:
            return show_gone(str(key))
        lo, hi, layer = cell
        return show_exact(exact_cell(trace, key=str(key), lo=lo, hi=hi, layer=layer))

    return _on_pick
