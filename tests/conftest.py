"""Fixtures that every folder uses; nothing is fetched but the real base model, and that once."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest
import torch
from tiny_models import make_tiny_base
from transformers import PreTrainedModel

from lmoe_studio.base_models import EMBEDDED_BASE, BaseModel, load_base


@pytest.fixture
def tiny_base() -> PreTrainedModel:
    return make_tiny_base()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, 256, (2, 9), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def real_base_once() -> BaseModel:
    """The real SmolLM2, loaded once; take `real_base` to change it."""
    return load_base(EMBEDDED_BASE, device="cpu")
