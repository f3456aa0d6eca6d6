"""A field of the form for each option of a training."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import gradio as gr

from lmoe_studio.ui.training.options import Option

_NONE = "none"


def build_option_fields(
    options: Sequence[Option], values: Sequence[Any], *, choices: Mapping[str, Sequence[str]]
) -> list[Any]:
    """Lay out the fields, group by group; their values are read by `option_values`.

    Args:
        options: in the order of `training_options`.
        values: what each shows at first.
        choices: what to offer for a field that takes other values too, by its name.
    """
    fields = []
    pairs = zip(options, values, strict=True)
    for title, group in groupby(pairs, key=lambda pair: pair[0].group):
        with gr.Accordion(title, open=False, elem_classes="option-group"):
            with gr.Row(elem_classes="options"):
                fields += [_field(each, value, choices.get(each.path[-1])) for each, value in group]
    return fields


def _field(option: Option, value: Any, choices: Sequence[str] | None) -> Any:
    common: dict[str, Any] = {
        "label": option.label,
        "info": option.help or None,
        "elem_id": f"option-{'-'.join(option.path)}",
        "min_width": 220,
    }
    if choices is not None:
        return gr.Dropdown(list(choices), value=value or None, allow_custom_value=True, **common)
    if option.kind == "choice":
        return gr.Dropdown(list(option.choices), value=value, **common)
    if option.kind == "switch":
        return gr.Checkbox(value, **common)
    empty = _NONE if option.may_be_empty else None
    # Bounds are the config's to check: its sentence names the field, Gradio's does not.
    if option.kind in ("whole", "number"):
        precision = 0 if option.kind == "whole" else None
        return gr.Number(
            value, precision=precision, placeholder=empty, step=_step(option), **common
        )
    return gr.Textbox(value, lines=1, max_lines=1, placeholder=empty, **common)


def _step(option: Option) -> float:
    return 1 if option.kind == "whole" else 0.001
