"""What every string must pass on its way to the browser."""

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with lone surrogates replaced, which JSON in UTF-8 cannot carry.

    One of them in one message ends the whole event stream of a page.
    """
    return _SURROGATE.sub("\ufffd", text)


def typed(value: object) -> str:
    """What someone typed; empty where something else than a text has come."""
    return value if isinstance(value, str) else ""
