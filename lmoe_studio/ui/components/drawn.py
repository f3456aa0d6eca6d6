"""A component that one of our scripts draws in the browser."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr


def build_drawn(
    kind: str,
    *,
    script: str | None = None,
    setup: Any = None,
    events: Sequence[str] = (),
    answers: Sequence[str] = (),
    **kwargs: Any,
) -> gr.HTML:
    """An empty component, drawn by `assets/<script>.js` with the styles of its kind.

    A function, because Gradio writes a stub file beside the source of every new component class.
    The template is constant, because data put through Gradio's templates is run as JavaScript.

    Args:
        kind: one of `DRAWN_STYLES`.
        script: one of `DRAWN_SCRIPTS`; None takes the one named like the kind.
        setup: what the script finds as `SETUP`.
        events: names of the events that the script triggers.
        answers: names of properties that answer something done in the same tab. Gradio loses
            properties while a tab is not open, so the rest comes as the value or by `facts.py`.
        kwargs: Gradio's own.
    """
    call = (
        f"draw_{script or kind}({{ element, props, trigger, watch, upload }}, {json.dumps(setup)})"
    )
    # Gradio knows an event by its name in quotes.
    told = "".join(f' "{event}"' for event in events)
    return gr.HTML(
        None,
        html_template=f'<div class="{kind}"></div>',
        js_on_load=f"{call};//{told}",
        apply_default_css=False,
        elem_classes=["drawn", f"drawn-{kind}"],
        **dict.fromkeys(answers),
        **kwargs,
    )
