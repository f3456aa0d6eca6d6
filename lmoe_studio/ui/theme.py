"""The look of the page; the experts' colours are in `palette.py`."""

from gradio.themes import Base
from gradio.themes.utils import colors, sizes
from gradio.themes.utils.fonts import LocalFont

from lmoe_studio.ui.palette import EXPERT_COLOURS, expert_colour, expert_glyph

__all__ = ["EXPERT_COLOURS", "build_theme", "expert_colour", "expert_glyph"]

_WEIGHTS = (400, 700)  # of the fonts that come with Gradio, the semibold ones lack most letters


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
