"""The smallest base model that a published layer's numbers can be put into, to run a whole pass.

A router here reads normalised states, the published ones read them as they are. So each token's state
gets one number more, which makes its mean square what normalisation leaves alone.
"""

from types import SimpleNamespace

import torch
from torch import nn
from transformers import LlamaConfig, PreTrainedModel

from lmoe_studio.base_models import identify
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.settings import RouterSettings

FLOAT32 = {"atol": 2e-5, "rtol": 1e-6}
_EPS = 1e-6  # of the normalisation
WIDTH = 64
ONE = WIDTH - 2
"""A place of each state that holds 1, for biases; the last one evens out its size."""


class Replica(PreTrainedModel):
    """Each block is `relu(first(h))` and `second` of it, the last one's output the logits."""

    config_class = LlamaConfig

    def __init__(self, states: torch.Tensor, blocks: int = 1) -> None:
        super().__init__(
            LlamaConfig(
                vocab_size=len(states), hidden_size=WIDTH, num_hidden_layers=blocks,
                num_attention_heads=1,
            )
        )  # fmt: skip
        self.embed = nn.Embedding.from_pretrained(states)
        self.layers = nn.ModuleList(Block() for _ in range(blocks))
        self.requires_grad_(False)

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, attention_mask=None, **_):
        hidden = self.embed(input_ids)
        for block in self.layers:
            hidden = block(hidden)
        return SimpleNamespace(logits=hidden, past_key_values=None)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH, bias=False)
        self.second = nn.Linear(WIDTH, WIDTH, bias=False)
        self.activation = nn.Identity()
        for linear in (self.first, self.second):
            linear.weight.data = torch.eye(WIDTH)

    def forward(self, hidden):
        return self.second(self.activation(self.first(hidden)))


def states_of(hidden: torch.Tensor) -> torch.Tensor:
    """States `[token, WIDTH]` that begin as these; mean square 1 - eps, whose inverse root with eps is 1."""
    states = torch.zeros(len(hidden), WIDTH, dtype=torch.float64)
    states[:, : hidden.shape[1]] = hidden
    states[:, ONE] = 1
    states[:, -1] = (WIDTH * (1 - _EPS) - states.square().sum(-1)).sqrt()
    return states.float()


def widened(matrix: torch.Tensor, rows: int | None = None, columns: int | None = WIDTH):
    """A matrix with zeros below and to the right of it."""
    rows, columns = rows or matrix.shape[-2], columns or matrix.shape[-1]
    found = torch.zeros(*matrix.shape[:-2], rows, columns)
    found[..., : matrix.shape[-2], : matrix.shape[-1]] = matrix
    return found


def mixture(
    base: Replica,
    experts: dict[str, dict[str, tuple[torch.Tensor, torch.Tensor, float]]],
    router: RouterSettings,
    state: dict[str, torch.Tensor],
) -> MixtureModel:
    """The model with experts (each: `a`, `b`, scale, by path) and a router with these tensors."""
    made = tuple(
        Expert(
            name,
            LoraAdapter(
                {
                    path: LoraFactors(a.float(), b.float(), scale)
                    for path, (a, b, scale) in places.items()
                },
                "replica",
            ),
        )
        for name, places in experts.items()
    )
    bank = ExpertBank(
        "replica", identify(base, "replica"), made, router,
        {name: tensor.float() for name, tensor in state.items()},
    )  # fmt: skip
    return MixtureModel(base, bank).eval()


@torch.no_grad()
def run(model: MixtureModel, rows: int, **options):
    """One pass over all tokens there are, as texts of equal length."""
    ids = torch.arange(model.base.config.vocab_size).view(rows, -1)
    return model(ids, record=True, **options)
