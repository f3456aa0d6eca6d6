"""Events as lines of a job's log."""

from lmoe_studio.training.events import (
    CheckpointRefused,
    CheckpointSaved,
    DataReady,
    EvalDone,
    Event,
    Finished,
    Message,
    Resumed,
    StepDone,
)

_EVERY = 10  # steps a line


def log_line(event: Event) -> str | None:
    """What the log says of an event; None where it says nothing."""
    match event:
        case Message(text):
            return text
        case DataReady(skills):
            found = (f"{skill.name}: {line}" for skill in skills for line in skill.sources)
            counts = "; ".join(
                f"{skill.name}: {skill.texts:,} texts, {skill.tokens:,} tokens" for skill in skills
            )
            return "\n".join([*found, counts])
        case StepDone() if event.step % _EVERY == 0 or event.step == event.steps:
            return (
                f"step {event.step}/{event.steps}  loss {event.language_loss:.3f}  "
                f"{event.tokens_per_second:,.0f} tokens/s"
            )
        case StepDone():
            return None
        case EvalDone():
            return f"held-out loss after step {event.step}: {event.mean:.3f} nats a token"
        case CheckpointSaved(step):
            return f"saved step {step}"
        case CheckpointRefused(folder, reason):
            return f"{folder} is damaged ({reason}); an older checkpoint is used"
        case Resumed(step):
            return f"going on after step {step}"
        case Finished(folder):
            return f"wrote {folder}"
