"""Colours and letters of experts, colours of token types, for every view; nothing of Gradio."""

from string import ascii_uppercase

EXPERT_COLOURS = (
    "#860AA6", "#AAABFE", "#C6B307", "#A80404", "#009570", "#6E739F",
    "#996BFF", "#EF8BAD", "#E73256", "#9B3363", "#A8B77B", "#2F1BFF",
)  # fmt: skip
"""Tellable apart, also with colour-blindness, on light and on dark; the first few are the best."""

TYPE_COLOURS = ("#8A8F98", "#E8871E", "#2A8FBD", "#5E9E3A", "#C45A9A", "#B08D57", "#3D5A80")
"""The first is that of tokens without a type."""


def expert_colour(index: int) -> str:
    """The colour of an expert; repeats after twelve, so it never stands without its glyph."""
    return EXPERT_COLOURS[index % len(EXPERT_COLOURS)]


def type_colour(index: int) -> str:
    """The colour of a type of token; those after grey repeat."""
    return TYPE_COLOURS[index and 1 + (index - 1) % (len(TYPE_COLOURS) - 1)]


def expert_glyph(index: int) -> str:
    """A, B, …, Z, AA, AB, …: unique for every expert."""
    letters = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        letters = ascii_uppercase[digit] + letters
    return letters
