"""A colour and a letter for each expert, used in every view, and the look of the page."""

from string import ascii_uppercase

from gradio.themes import Base
from gradio.themes.utils import colors, sizes
from gradio.themes.utils.fonts import LocalFont

EXPERT_COLOURS = (
    "#860AA6", "#AAABFE", "#C6B307", "#A80404", "#009570", "#6E739F",
    "#996BFF", "#EF8BAD", "#E73256", "#9B3363", "#A8B77B", "#2F1BFF",
)  # fmt: skip
"""Tellable apart, also with colour-blindness, on light and on dark; the first few are the best."""

_WEIGHTS = (400, 700)  # of the fonts that come with Gradio, the semibold ones lack most letters


def expert_colour(index: int) -> str:
    """The colour of an expert; repeats after twelve, so it never stands without its glyph."""
    return EXPERT_COLOURS[index % len(EXPERT_COLOURS)]


def expert_glyph(index: int) -> str:
    """A, B, …, Z, AA, AB, …: unique for every expert."""
    letters = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        letters = ascii_uppercase[digit] + letters
    return letters


def build_theme() -> Base:
    """Neutral ink on paper: the experts are what has colour. All fonts come with Gradio."""
    return Base(
        primary_hue=colors.zinc,
        secondary_hue=colors.zinc,
        neutral_hue=colors.zinc,
        text_size=sizes.text_sm,
        spacing_size=sizes.spacing_sm,
        radius_size=sizes.radius_sm,
        font=(LocalFont("IBM Plex Sans", _WEIGHTS), "system-ui", "sans-serif"),
        font_mono=(LocalFont("IBM Plex Mono", _WEIGHTS), "ui-monospace", "monospace"),
    ).set(
        body_background_fill="#fafafa",
        body_background_fill_dark="#0f0f11",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        block_shadow="none",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_900",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_primary_background_fill="*neutral_800",
        button_primary_background_fill_hover="*neutral_900",
        button_primary_background_fill_dark="*neutral_200",
        button_primary_background_fill_hover_dark="*neutral_50",
        button_primary_text_color="white",
        button_primary_text_color_dark="*neutral_900",
    )
