"""The events of a training run as a progress bar."""

from typing import TYPE_CHECKING, Any

from rich.table import Table

from lmoe_studio.cli.console import plain, progress_bar

if TYPE_CHECKING:
    from lmoe_studio.training.events import Event


class TrainingProgress:
    """Shows the events of a run as a progress bar."""

    def __init__(self) -> None:
        self._bar = progress_bar()
        self._task = self._bar.add_task("Training", total=None, line="")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: "Event") -> None:
        from lmoe_studio.training.events import EvalDone, Finished, Message, StepDone

        match event:
            case Message(text):
                self._bar.console.print(plain(text))
            case StepDone():
                line = (
                    f"step {event.step}/{event.steps}  loss {event.language_loss:.3f}  "
                    f"balance {event.balance_loss:.2f}  {event.tokens_per_second:,.0f} tokens/s"
                )
                self._bar.update(self._task, total=event.steps, completed=event.step, line=line)
                if not self._bar.console.is_terminal and event.step % 10 == 0:
                    self._bar.console.print(line)
            case EvalDone():
                self._bar.console.print(_loss_table(event))
            case Finished(folder):
                self._bar.console.print(f"Wrote {folder}")


def _loss_table(event: Any) -> Table:
    table = Table("skill", "base", "bank", "change", title="Held-out loss, nats a token")
    for name, base in event.base.items():
        bank = event.bank[name]
        table.add_row(name, f"{base:.3f}", f"{bank:.3f}", f"{bank - base:+.3f}")
    return table
