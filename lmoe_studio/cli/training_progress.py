"""The events of a training run as a progress bar, and a preview of its data."""

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from lmoe_studio.cli.console import progress_bar, table_console

if TYPE_CHECKING:
    from lmoe_studio.training.events import Event, GroupHealth


class TrainingProgress:
    """Shows the events of a run as a progress bar."""

    def __init__(self) -> None:
        self._bar = progress_bar()
        self._task = self._bar.add_task("Training", total=None, line="")
        self._health: tuple[str, ...] = ()

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: "Event") -> None:
        from lmoe_studio.training import events

        match event:
            case events.Message(text):
                self._say(text)
            case events.DataReady(skills):
                for skill in skills:
                    for line in skill.sources:
                        self._say(line)
                    left_out = ", ".join(f"{n:,} {why}" for why, n in skill.dropped.items())
                    self._say(
                        f"{skill.name}: {skill.texts:,} texts, {skill.held_out_texts:,} held out"
                        + (f"; {left_out}" if left_out else "")
                    )
            case events.StepDone():
                line = (
                    f"step {event.step}/{event.steps}  loss {event.language_loss:.3f}  "
                    f"balance {event.balance_loss:.2f}  {event.tokens_per_second:,.0f} tokens/s"
                )
                self._bar.update(self._task, total=event.steps, completed=event.step, line=line)
                if not self._bar.console.is_terminal and event.step % 10 == 0:
                    self._say(line)
                self._warn(event.health)
            case events.EvalDone(final=True):
                self._bar.console.print(_loss_table(event))
            case events.EvalDone():
                base = sum(event.base.values()) / len(event.base)
                self._say(
                    f"held-out loss after step {event.step}: {event.mean:.3f} (base {base:.3f})"
                )
            case events.Resumed(step):
                self._say(f"Going on after step {step}")
            case events.CheckpointRefused(folder, reason):
                self._say(f"A checkpoint is damaged ({reason}) and was put aside: {folder}")
            case events.CheckpointSaved():
                pass
            case events.Finished(folder, step):
                self._say(f"Wrote {folder} (step {step})")

    def _warn(self, health: "tuple[GroupHealth, ...]") -> None:
        """Say when the routers of some layers begin to collapse, and when they have recovered."""
        found = tuple(f"layers {group.layers}: {group.health}" for group in health)
        if self._health and found != self._health:
            for group, now, before in zip(health, found, self._health, strict=True):
                if now != before and "collapsed" in now + before:
                    self._say(f"Router, {now}; {group.top_expert} has {group.max_share:.0%}")
        self._health = found

    def _say(self, line: str) -> None:
        self._bar.console.print(line, soft_wrap=True)


def print_preview(shown: dict[str, list[list[tuple[str, bool]]]]) -> None:
    """Print sequences as the model sees them; what is only read, and not learned, in «marks»."""
    from lmoe_studio.tracing.token_texts import INCOMPLETE

    out = table_console()
    for skill, sequences in shown.items():
        for number, tokens in enumerate(sequences, start=1):
            text = Text()
            reading = False
            for token, learned in [*tokens, ("", True)]:
                if reading == learned:
                    text.append("»" if learned else "«")
                    reading = not learned
                text.append(token.replace(INCOMPLETE, ""), style="" if learned else "dim")
            out.print(Text(f"{skill}, sequence {number}: {len(tokens)} tokens", style="bold"))
            out.print(text, soft_wrap=True)


def _loss_table(event: Any) -> Table:
    table = Table("skill", "base", "bank", "change", title="Held-out loss, nats a token")
    for name, base in event.base.items():
        bank = event.bank[name]
        table.add_row(name, f"{base:.3f}", f"{bank:.3f}", f"{bank - base:+.3f}")
    return table
