"""What the adapter_config.json of a LoRA says, field by field.

Fields that change what the weights mean are refused with the reason; fields about training are
passed over. A regular expression from the file has a tenth of a second: some never return.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.safetensors_check import show, strict_json
from lmoe_studio.routing.matching import MAX_PATTERN, compile_regex, matches_whole

CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 256 * 1024
MAX_RANK = 1024
MAX_ALPHA = 1e4
_MAX_EXPRESSIONS = 20
_MAX_BASE_LENGTH = 1000

_SHARED = "it changes parts of the base model that all experts share"
_OTHER_METHOD = "it computes something else than scale · B @ A"
_RUNS_CODE = "it names code to import"
_MUST_BE_EMPTY = {
    "alora_invocation_tokens": _OTHER_METHOD,
    "arrow_config": _OTHER_METHOD,
    "auto_map": _RUNS_CODE,
    "kasa_config": _OTHER_METHOD,
    "layer_replication": _SHARED,
    "loftq_config": _SHARED,
    "lora_bias": "it adds a bias to the layers",
    "megatron_config": _RUNS_CODE,
    "trainable_token_indices": _SHARED,
    "trust_remote_code": _RUNS_CODE,
    "use_bdlora": _OTHER_METHOD,
    "use_dora": _OTHER_METHOD,
    "use_qalora": _OTHER_METHOD,
    "corda_config": _SHARED,
    "lora_ga_config": _SHARED,
    "monteclora_config": _OTHER_METHOD,
    "velora_config": _OTHER_METHOD,
}
_INSTEAD = {
    "bias": "train it with bias='none'",
    "init_lora_weights": "save it again with PEFT's save_pretrained and "
    "path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
    "lora_bias": "train it with lora_bias=False",
    "trainable_token_indices": "train it without new tokens",
    "use_dora": "train it with use_dora=False, or merge it into its base model with PEFT "
    "(merge_and_unload) and take that as the base",
}
"""What to do about a field, where it is more than taking another adapter."""

_MAY_COMPUTE = re.compile(r"use_\w+|\w+_config", re.ASCII)
# A field that nobody here knows is passed over with a word, unless its name is one that PEFT gives to
# other ways of computing.

_ABOUT_TRAINING = {
    # How the *base's* weight lies: A and B are the same either way.
    "fan_in_fan_out",
    *("eva_config", "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform"),
    *("lora_dropout", "peft_version", "qalora_group_size", "revision", "runtime_config"),
    *("task_type", "ensure_weight_tying"),
}
_NARROWING = ("exclude_modules", "layers_pattern", "layers_to_transform")
_HARMLESS_INITS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
# The other ways to start (PiSSA, OLoRA, CorDA, LoftQ, …) change the weights of the base model.

_PLAIN_END = re.compile(r"\^?\w+(\.\w+)*", re.ASCII)
_LIBRARY = re.compile(r"(transformers|peft)(\.\w+)*", re.ASCII)

Pattern = dict[str, tuple[int, float]]
"""By the end of a module path, or a regular expression of it: where the key stands, and the value."""


@dataclass(frozen=True)
class AdapterConfig:
    """The fields of an adapter's configuration that say what its weights mean."""

    rank: int
    alpha: float
    is_rank_stabilised: bool
    rank_pattern: Pattern
    alpha_pattern: Pattern
    target_modules: frozenset[str] | None
    """Ends of module paths; None where the file has a regular expression or nothing."""
    names_all_layers: bool
    """Whether each layer that `target_modules` names is one of the adapter's."""
    target_parameters: frozenset[str]
    """Ends of the paths of bare weights that it is on."""
    base: str | None
    notes: tuple[str, ...] = ()
    """What was passed over, a sentence each."""

    def rank_of(self, path: str) -> int:
        return int(_first_match(self.rank_pattern, path, self.rank))

    def scale_of(self, path: str) -> float:
        alpha, rank = _first_match(self.alpha_pattern, path, self.alpha), self.rank_of(path)
        return alpha / math.sqrt(rank) if self.is_rank_stabilised else alpha / rank

    def is_target(self, path: str) -> bool:
        if self.target_modules is None or self.target_parameters:
            return True
        return any(end in self.target_modules for end in ends(path))


def ends(path: str) -> Iterator[str]:
    """Of "a.b.c": "a.b.c", "b.c" and "c"."""
    yield path
    while "." in path:
        path = path.split(".", 1)[1]
        yield path


def _first_match(pattern: Pattern, path: str, default: float) -> float:
    """PEFT takes the first key of the file that ends the path; a leading ^ asks for all of it."""
    keys = [key for key in ("^" + path, *ends(path)) if key in pattern]
    keys += [key for key in _regular(pattern) if _matches(key, path)]
    return min(pattern[key] for key in keys)[1] if keys else default


def _matches(key: str, path: str) -> bool:
    try:
        return matches_whole(rf"(.*\.)?({key})", path)
    except ValueError as error:
        raise AdapterError(f"{CONFIG}: {error} on {show(path)}; write the path itself.") from None


def _regular(keys: Iterable[str]) -> list[str]:
    """Those that are regular expressions and not the plain end of a path."""
    return [key for key in keys if not _PLAIN_END.fullmatch(key)]


def read_fields(raw: bytes) -> dict[str, object]:
    """The fields of the bytes of an adapter_config.json. Raises AdapterError where there are none."""
    if len(raw) > MAX_CONFIG_BYTES:
        raise AdapterError(
            f"{CONFIG} is larger than the {MAX_CONFIG_BYTES // 1024} KB that were expected at most;"
            f" save the adapter again with PEFT."
        )
    return strict_json(raw, CONFIG)


def check_config(fields: Mapping[str, object], *, leave_out: Collection[str] = ()) -> AdapterConfig:
    """Takes the known fields; refuses what changes the computation, and notes what is not known.

    Args:
        fields: of the file.
        leave_out: names of layers that are passed over, also where they are in `modules_to_save`.
    """
    rest = {name: value for name, value in fields.items() if name not in _ABOUT_TRAINING}
    _take_fixed_fields(rest)
    _take_saved_modules(rest, leave_out)
    config = AdapterConfig(
        rank=_rank("r", rest.pop("r", None)),
        alpha=_alpha("lora_alpha", rest.pop("lora_alpha", None)),
        is_rank_stabilised=_flag("use_rslora", rest.pop("use_rslora", None)),
        rank_pattern=_pattern("rank_pattern", rest.pop("rank_pattern", None), _rank),
        alpha_pattern=_pattern("alpha_pattern", rest.pop("alpha_pattern", None), _alpha),
        target_modules=_target_modules(rest.pop("target_modules", None)),
        names_all_layers=isinstance(fields.get("target_modules"), list)
        and not any(fields.get(name) is not None for name in _NARROWING)
        and not fields.get("target_parameters"),
        target_parameters=_names("target_parameters", rest.pop("target_parameters", None)),
        base=_base(rest.pop("base_model_name_or_path", None)),
    )
    unknown = {name: value for name, value in rest.items() if value}
    for name, value in unknown.items():
        if name in _MUST_BE_EMPTY or _MAY_COMPUTE.fullmatch(name):
            reason = _MUST_BE_EMPTY.get(name, "it may be computed otherwise than a plain LoRA")
            _refuse(name, value, "nothing", reason)
    notes = tuple(
        f"{CONFIG} has {show(value)} in the field {show(name)}, which is not known here and was "
        "passed over"
        for name, value in unknown.items()
    )
    return replace(config, notes=notes)


def _take_saved_modules(rest: dict[str, object], leave_out: Collection[str]) -> None:
    """Layers that were trained whole can only be left out."""
    saved = rest.pop("modules_to_save", None)
    if not saved:
        return
    names = saved if isinstance(saved, list) else [saved]
    if not all(isinstance(name, str) and name in leave_out for name in names):
        options = " ".join(f"--leave-out {show(name)}" for name in names[:3])
        _refuse("modules_to_save", saved, "nothing", f"{_SHARED} (or leave them out: {options})")


def _refuse(name: str, value: object, expected: str, reason: str = "") -> NoReturn:
    came = "nothing" if value is None else show(value)
    because = f", because {reason}" if reason else ""
    raise AdapterError(
        f"{CONFIG} has {came} in the field {show(name)} where {expected} was "
        f"expected{because}; {_INSTEAD.get(name, 'import a plain LoRA adapter')}."
    )


def _take_fixed_fields(rest: dict[str, object]) -> None:
    """Takes out the fields that have one right value, or a few."""
    if (value := rest.pop("peft_type", None)) != "LORA":
        _refuse("peft_type", value, "'LORA'", "no other kind can become an expert")
    if (value := rest.pop("bias", None)) not in (None, "none"):
        _refuse("bias", value, "'none'", "biases belong to the base model")
    if (value := rest.pop("megatron_core", None)) not in (None, "megatron.core"):
        _refuse("megatron_core", value, "'megatron.core' or nothing", _RUNS_CODE)
    if (value := rest.pop("init_lora_weights", None)) not in _HARMLESS_INITS:
        _refuse("init_lora_weights", value, "true", "other ways to start change the base model")
    if not _is_harmless_mapping(value := rest.pop("auto_mapping", None)):
        _refuse("auto_mapping", value, "nothing or a class of transformers", _RUNS_CODE)


def _is_harmless_mapping(value: object) -> bool:
    """PEFT names the base model's class here where it knows no task; we import nothing of it."""
    match value:
        case None:
            return True
        case {"base_model_class": str(), "parent_library": str(library), **rest}:
            return set(rest) <= {"unsloth_fixed"} and bool(_LIBRARY.fullmatch(library))
        case _:
            return False


def _rank(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_RANK:
        _refuse(name, value, f"a whole number from 1 to {MAX_RANK}")
    return value


def _alpha(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MAX_ALPHA:
        _refuse(name, value, f"a number above 0 and at most {MAX_ALPHA:g}")
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool | None):
        _refuse(name, value, "true or false")
    return bool(value)


def _pattern(name: str, value: object, check: Callable[[str, object], float]) -> Pattern:
    if not isinstance(value, dict | None):
        _refuse(name, value, "an object")
    expressions = _regular(value or {})
    if len(expressions) > _MAX_EXPRESSIONS:
        _refuse(name, expressions[0], f"at most {_MAX_EXPRESSIONS} regular expressions")
    for key in expressions:
        if not 0 < len(key) <= MAX_PATTERN:
            _refuse(name, key, f"the end of a module path, of up to {MAX_PATTERN} characters")
        if not _is_expression(rf"(.*\.)?({key})"):
            _refuse(
                name, key, "the end of a module path", "it can take forever, or is no expression"
            )
    return {
        key: (place, check(f"{name}.{key}", number))
        for place, (key, number) in enumerate((value or {}).items())
    }


def _is_expression(pattern: str) -> bool:
    try:
        compile_regex(pattern)
    except ValueError:
        return False
    return True


def _target_modules(value: object) -> frozenset[str] | None:
    match value:
        case None | str():  # "all-linear" or a regular expression; the tensors say what it means
            return None
        case [*names] if all(isinstance(name, str) for name in names):
            return frozenset(names)
        case _:
            _refuse("target_modules", value, "a list of module names")


def _names(field: str, value: object) -> frozenset[str]:
    match value:
        case None:
            return frozenset()
        case [*names] if all(isinstance(name, str) for name in names):
            return frozenset(names)
        case _:
            _refuse(field, value, "a list of names")


def _base(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_BASE_LENGTH:
        _refuse("base_model_name_or_path", value, "the name of a model")
    return value
