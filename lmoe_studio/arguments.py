"""What people hand to the Studio's verbs, checked where it comes in: texts and numbers."""

from operator import index

from lmoe_studio.errors import ConfigError, TextError, kind_of

_MOST = 2**63 - 1


def one_text(given: object, what: str, hint: str = "") -> str:
    """A text. Raises TextError, naming what it is for, and with a hint for what came instead."""
    if not isinstance(given, str):
        raise TextError(f"{what} is {kind_of(given)}; expected text{hint}.")
    return given


def whole_number(given: object, name: str, *, least: int, most: int | None = None) -> int:
    """A whole number within bounds, also NumPy's. Raises ConfigError."""
    is_whole = hasattr(given, "__index__") and kind_of(given) not in ("a bool", "an ndarray")
    number = index(given) if is_whole else None  # pyright: ignore[reportArgumentType]
    if number is None or not least <= number <= (_MOST if most is None else most):
        bounds = f"from {least} up" if most is None else f"from {least} to {most:,}"
        came = kind_of(given) if number is None else _shown(number)
        raise ConfigError(f"{name} is {came}; expected a whole number {bounds}.")
    return number


def _shown(number: int) -> str:  # Python writes no number of more than 4,300 digits
    return f"{number:,}" if abs(number) <= _MOST else "a number of more than 18 digits"
