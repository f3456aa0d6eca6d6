"""How an import goes, in the page's words: what was taken, and what was refused and why."""

from lmoe_studio.ui import panels
from lmoe_studio.ui.importing.desk import ImportState


def import_panel(state: ImportState) -> str:
    """A panel: a bar while the import goes on, and afterwards a line for each adapter."""
    if not state.is_over:
        share = state.steps / state.of_steps
        ends = "It ends after this step. " if state.is_stopping else ""
        text = f"{ends}{state.step}…"
        return panels.progress_panel(f"Importing into {state.bank}", text, share)
    if state.problem is not None:
        return panels.panel("problem", *state.problem)
    if state.was_stopped:
        return panels.panel("note", "Stopped", "No bank was written.")
    lines = [(name, "") for name in state.taken] + list(state.refused.items())
    notes = "".join(f"<p>{panels.safe(note)}.</p>" for note in state.notes)
    return _listed(state, "".join(_line(name, why) for name, why in lines), notes)


def _listed(state: ImportState, lines: str, notes: str) -> str:
    experts = _counted(len(state.taken), "adapter")
    refused = _counted(len(state.refused), "adapter")
    if state.taken:
        title = f"The bank {state.bank} is ready"
        left_out = f" {refused} could not be taken." if state.refused else ""
        text = f"{experts} became its experts.{left_out}"
    else:
        title, text = "No bank was made", f"{refused} could not be taken."
    tone, role = ("note", "status") if state.taken else ("problem", "alert")
    return (
        f'<div class="panel {tone}" role="{role}"><i></i><div><strong>{panels.safe(title)}</strong>'
        f"<p>{panels.safe(text)}</p><ul class='imported'>{lines}</ul>{notes}</div></div>"
    )


def _line(name: str, why: str) -> str:
    mark, kind, text = ("✗", "refused", why) if why else ("✓", "taken", "taken")
    return (
        f"<li class='{kind}'><i aria-hidden='true'>{mark}</i><b>{panels.safe(name)}</b> "
        f"<span>{panels.safe(text)}</span></li>"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
