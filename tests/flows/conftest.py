"""The demo bank over the real SmolLM2, loaded once for all that only look at it."""

import pytest

from lmoe_studio.studio import Studio


@pytest.fixture(scope="session")
def demo() -> Studio:
    """Give a test that changes its studio one of its own."""
    return Studio.load("demo", device="cpu")
