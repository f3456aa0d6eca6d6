"""Generating a text for a page: views of it as it grows, at a pace a page can follow.

Every way it can end is a `Written`, none is an exception.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

from lmoe_studio.errors import ConfigError, TextError
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.ui import panels
from lmoe_studio.ui.problems import explain
from lmoe_studio.ui.source import SourceState

if TYPE_CHECKING:
    from lmoe_studio.studio import Studio

MOST_NEW_TOKENS = 1024
_LEAST_SECONDS = 0.125
"""Between two views."""
_SHARE_OF_TIME = 0.25
"""Views take at most this part of the time; the model has the rest."""
_SECONDS_PER_TOKEN = 1 / 2000
"""Views of a long text are large, and so come less often."""


@dataclass(frozen=True)
class Settings:
    """How to generate, apart from the plan."""

    max_new_tokens: int = 64
    temperature: float | None = None
    """None always takes the likeliest token."""
    seed: int | None = 0
    chat: bool = False


@dataclass(frozen=True)
class Written:
    """One view of a run: how far it is, or how it ended."""

    status: str
    trace: RoutingTrace | None = None
    live: bool = True
    notice: str = ""
    notes: tuple[str, ...] = ()


def read_settings(
    max_new_tokens: object, greedy: object, temperature: object, seed: object, chat: object
) -> Settings:
    """Settings as a form holds them. Raises ConfigError, one sentence each."""
    return Settings(
        max_new_tokens=_whole(max_new_tokens, "New tokens", 1, MOST_NEW_TOKENS),
        temperature=None if greedy else _temperature(temperature),
        seed=None if seed in (None, "") else _whole(seed, "The seed", 0, 2**31 - 1),
        chat=bool(chat),
    )


def write(
    state: SourceState,
    prompt: str | RoutingTrace,
    plan: RoutingPlan,
    settings: Settings,
    stop: Event,
) -> Iterator[Written]:
    """Generate, and tell how far it is; setting `stop` ends it within a token.

    Args:
        state: holds the studio.
        prompt: what the text begins with, or a text to go on after.
        plan: what to change about the routing.
        settings: of the run.
        stop: see above.
    """
    if state.studio is None:
        yield Written(panels.status_line("Waiting for the model", tone="loading"), live=False)
        return
    try:
        yield from _write(state.studio, prompt, plan, settings, stop)
    except Exception as error:
        title, sentence = explain(error)
        notice = panels.panel("problem", title, sentence)
        yield Written(panels.status_line(title, tone="problem"), live=False, notice=notice)


def _write(
    studio: "Studio",
    prompt: str | RoutingTrace,
    plan: RoutingPlan,
    settings: Settings,
    stop: Event,
) -> Iterator[Written]:
    if isinstance(prompt, str) and not prompt.strip():
        raise TextError("Write the beginning of a text, or a question, and the model goes on.")
    before = 0 if isinstance(prompt, str) else int(prompt.generated.sum())
    most = before + settings.max_new_tokens
    notes = studio.check_plan(plan, max_new_tokens=most)
    if not isinstance(prompt, str) and prompt.plan != (plan.to_json() if plan else None):
        notes += (f"The first {before:,} new tokens were written under another plan, and stay.",)
    pieces: Any = studio.stream(prompt, plan=plan, should_stop=stop, **options_of(settings))
    due = 0.0
    with closing(pieces):
        for piece in pieces:
            if piece.finish is not None:
                yield _end(piece.generation, settings, most, notes)
                return
            started = time.perf_counter()
            if started < due:
                continue
            how_far = f"Generating: {piece.step + 1} of {most} tokens"
            trace = piece.trace()
            yield Written(panels.status_line(how_far, tone="loading"), trace, notes=notes)
            now = time.perf_counter()
            pause = (now - started) * (1 / _SHARE_OF_TIME - 1)
            due = now + max(_LEAST_SECONDS, pause, len(trace or ()) * _SECONDS_PER_TOKEN)


def options_of(settings: Settings) -> dict[str, Any]:
    """The settings as arguments of the studio's verbs."""
    return {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
        "chat": settings.chat,
    }


def _end(generation: Any, settings: Settings, most: int, notes: tuple[str, ...]) -> Written:
    written, count = len(generation.token_ids), generation.new_tokens
    how = f"{count:,} tokens in {generation.seconds:.1f} s ({generation.tokens_per_second:.1f} a second)"
    if settings.temperature is not None:
        how += f" · seed {generation.seed}"
    if generation.finish == "stopped":
        notes += (f"Partial: stopped after {written} of {most} tokens.",)
        status = panels.status_line(f"Stopped · {how}")
    else:
        status = panels.status_line(f"Generated {how}")
    return Written(status, generation.trace, live=False, notes=notes)


def _whole(value: object, name: str, low: int, high: int) -> int:
    if isinstance(value, int | float) and float(value).is_integer() and low <= value <= high:
        return int(value)
    raise ConfigError(
        f"{name}: expected a whole number from {low:,} to {high:,}, got {_said(value)}."
    )


def _temperature(value: object) -> float:
    if isinstance(value, int | float) and 0 < value <= 10:
        return float(value)
    raise ConfigError(
        f"The temperature lies above 0 and up to 10, got {_said(value)}; for always the likeliest "
        "token, switch sampling off."
    )


def _said(value: object) -> str:
    return "nothing" if value is None else str(value)[:40]
