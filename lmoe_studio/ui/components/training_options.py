"""The bank's name, how long to train, and every option of the config, drawn in the browser."""

from itertools import groupby
from typing import Any

import gradio as gr

from lmoe_studio.config import EMBEDDED_BASE
from lmoe_studio.routing.presets import PRESETS as ROUTER_PRESETS
from lmoe_studio.training.config import OF_SHARES
from lmoe_studio.ui.components.drawn import build_drawn
from lmoe_studio.ui.training.options import Option, shown_values, training_options
from lmoe_studio.ui.training.presets import PRESETS

_NAME = "my-bank"
_OFFERED = {"base": [EMBEDDED_BASE], "bank": [], "device": ["auto", "cpu", "cuda", "mps"]}
"""What is offered to choose from where a field takes other texts too; the Studio knows more."""


def build_training_options(**kwargs: Any) -> gr.HTML:
    """All fields at their usual values; `read_options` reads the component's value."""
    options = training_options()
    groups = groupby(options, key=lambda option: option.group)
    presets = [{"name": one.name, "note": one.note, "values": dict(one.options)} for one in PRESETS]
    setup = {
        "name": _NAME,
        "presets": presets,
        "groups": [
            {"title": title, "options": list(map(_field, group))} for title, group in groups
        ],
        "offered": _OFFERED,
        "fills": {"router.preset": router_presets()},
    }
    return build_drawn("options", setup=setup, answers=("imported",), **kwargs)


def _field(option: Option) -> dict[str, Any]:
    field = {
        "key": option.key,
        "label": option.label,
        "kind": option.kind,
        "help": option.help,
        "usual": option.shown(option.default),
        "choices": option.choices,
        "empty": option.may_be_empty,
    }
    return {
        name: value for name, value in field.items() if value not in ((), False) or name == "usual"
    }


def router_presets() -> dict[str, dict[str, Any]]:
    """What each preset of a router makes of the other fields: it shows what it stands for."""
    fields = [option.key for option in training_options() if option.path[0] == "router"]
    found = {}
    for name, settings in ROUTER_PRESETS.items():
        shown = shown_values({"router": settings})
        found[name] = {key: shown[key] for key in fields if key != "router.preset"}
        if settings.get("activation") == "identity":
            found[name] |= dict.fromkeys(OF_SHARES, 0)
    return found


def show_options(config: dict[str, Any], *, serial: str) -> dict[str, Any]:
    """The update that shows a config's values; `serial` tells two apart."""
    return gr.update(
        imported={"name": config["name"], "values": shown_values(config), "serial": serial}
    )
