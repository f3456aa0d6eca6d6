"""Published mechanisms by name: the settings that make a router one of them. No torch here.

What each is, and where it departs from its paper, is in docs/mechanisms.md.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from lmoe_studio.errors import ConfigError, did_you_mean

Settings = Mapping[str, Any]
Preset = Literal["wemoe", "e-wemoe", "moa-soft", "moa-sparse", "moiie", "smore", "read-me", "rtd"]

_WEMOE = {
    "kind": "mlp",
    "activation": "identity",
    "pool": "prefix",
    "options": {"form": "relu", "start": 0.3},
}
_MOA = {"kind": "mlp", "activation": "sigmoid", "options": {"form": "swiglu"}}
_FAN_OUT = 2

PRESETS: Mapping[Preset, Settings] = MappingProxyType(
    {
        "wemoe": _WEMOE,
        "e-wemoe": {**_WEMOE, "scope": "tied", "layer_code": 8},
        "moa-soft": _MOA,
        "moa-sparse": {**_MOA, "threshold": {"limit": 0.5, "learned": True, "rule": "keep"}},
        "moiie": {
            "kind": "typed",
            "top_k": 2,
            "options": {
                "types": [
                    {"name": "prompt", "tokens": "prompt"},
                    {"name": "generated", "tokens": "generated"},
                ]
            },
        },
        "smore": {"kind": "tree"},
        "read-me": {"kind": "pre", "scope": "shared", "top_k": 1},
        "rtd": {"kind": "knn", "options": {"k": 32}},
    }
)


def with_preset(given: Settings, experts: Sequence[str] | None = None) -> dict[str, Any]:
    """Settings of a router without `preset`, which has become what it stands for.

    Whatever stands beside it goes before it, key by key, also inside `options` and `threshold`. The
    options of a preset go with its kind: where another one is given, they are left out.

    Args:
        given: settings, perhaps with the name of a preset.
        experts: names of those that it will route to, where they are known.

    Raises:
        ConfigError: there is no such preset, or it needs the experts' names.
    """
    own = {name: value for name, value in given.items() if name != "preset"}
    name = given.get("preset")
    if name is None or name == "":
        return own
    settings = next((settings for known, settings in PRESETS.items() if known == name), None)
    if settings is None:
        raise ConfigError(f"There is no preset {name!r:.80}; {did_you_mean(str(name), PRESETS)}")
    values = dict(settings)
    if own.get("kind", values["kind"]) != values["kind"]:
        values.pop("options", None)
        return values | own
    values["options"] = values.get("options", {})
    make = _OF_EXPERTS.get(str(name))
    if make and experts is not None and "levels" not in (own.get("options") or {}):
        values["options"] = make(experts)
    elif make and not own.get("options"):
        raise ConfigError(
            f"The preset {name!r} takes the experts' names from a config's skills; where there is "
            "none, give `options` as docs/mechanisms.md has them."
        )
    return _merged(values, own)


def _levels(experts: Sequence[str]) -> dict[str, Any]:
    """Two levels, the first half of the experts above the rest."""
    half = len(experts) // 2
    if half < _FAN_OUT:
        raise ConfigError(
            f"The preset 'smore' makes two levels of at least {_FAN_OUT} experts, and here are "
            f"{len(experts)}; name the levels in `options`."
        )
    levels = list(experts[:half]), list(experts[half:])
    return {"levels": [{"experts": one, "fan_out": _FAN_OUT} for one in levels]}


_OF_EXPERTS: Mapping[str, Callable[[Sequence[str]], dict[str, Any]]] = MappingProxyType(
    {"smore": _levels}
)
"""Presets whose options name the experts."""


def _merged(one: Settings, other: Settings) -> dict[str, Any]:
    both = dict(one) | dict(other)
    for name in one.keys() & other.keys():
        if isinstance(one[name], Mapping) and isinstance(other[name], Mapping):
            both[name] = {**one[name], **other[name]}
    return both
