"""The page's own bits of HTML: plain strings, every value escaped."""

from html import escape
from typing import TYPE_CHECKING, Literal

from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.palette import expert_colour, expert_glyph

if TYPE_CHECKING:
    from lmoe_studio.cards import BankCard, ExpertCard

Tone = Literal["loading", "note", "problem"]


def safe(text: str) -> str:
    """Text that can stand between tags or in a quoted attribute."""
    return escape(clean(text), quote=True)


def header() -> str:
    """The product's name, at the top of the page."""
    return (
        '<div class="brand"><span class="brand-mark" aria-hidden="true"><i></i><i></i><i></i></span>'
        '<h1>L-MoE Studio</h1><span class="brand-line">'
        "see, steer and measure mixtures of LoRA experts</span>"
        '<button type="button" id="keys-help" title="Keys (?)" aria-label="Help of keys">?</button></div>'
    )


def progress_panel(title: str, text: str, share: float) -> str:
    """Something that goes on, with a bar; `share` is what is done, 0 to 1."""
    return (
        '<div class="panel loading" role="status"><i></i><div>'
        f"<strong>{safe(title)}</strong><p>{safe(text)}</p>"
        f'<progress value="{share:.4f}" max="1">{share:.0%}</progress></div></div>'
    )


def status_line(text: str, *, tone: Tone | None = None) -> str:
    """One line that says what the Studio is doing."""
    return f'<div class="status {tone or "ready"}"><i></i><span>{safe(text)}</span></div>'


def training_status(text: str) -> str:
    """What trains at the moment; a button that leads there. Empty where nothing does."""
    return f'<button type="button" title="Open the Train tab">{safe(text)}</button>' if text else ""


def panel(tone: Tone, title: str, text: str) -> str:
    """A designed place for a state: what it is, and what to do."""
    role = "alert" if tone == "problem" else "status"
    return (
        f'<div class="panel {tone}" role="{role}"><i></i>'
        f"<div><strong>{safe(title)}</strong><p>{safe(text)}</p></div></div>"
    )


def bank_card(card: "BankCard") -> str:
    """What is loaded: the bank, its base model, and the experts in order."""
    facts = {
        "Base model": card.base,
        "Router": card.router,
        "Composition": card.composition,
        "Layers": f"{card.num_layers}",
        "Context": f"{card.context_length:,} tokens",
        "Parameters": f"{_millions(card.base_parameters)} + {_millions(card.bank_parameters)}",
        "Runs on": f"{card.device}, {card.dtype}"
        + (f", linear layers in {card.quantize}" if card.quantize else ""),
    }
    rows = "".join(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in facts.items())
    experts = "".join(_expert_row(index, expert) for index, expert in enumerate(card.experts))
    return (
        f'<section class="card"><h2>{safe(card.bank)}</h2><dl>{rows}</dl>'
        f"<h3>{len(card.experts)} experts</h3><ol>{experts}</ol></section>"
    )


def empty_card(text: str) -> str:
    """The place of the bank card while there is no bank."""
    return f'<section class="card none"><h2>No bank yet</h2><p>{safe(text)}</p></section>'


def _expert_row(index: int, expert: "ExpertCard") -> str:
    about = safe(
        " · ".join([expert.description, *expert.tags] if expert.description else expert.tags)
    )
    return (
        f'<li><span class="glyph" style="--expert: {expert_colour(index)}">'
        f"{expert_glyph(index)}</span><span>{safe(expert.name)}</span>"
        f"<small>rank {expert.rank}</small>{about and f'<p>{about}</p>'}</li>"
    )


def _millions(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"
