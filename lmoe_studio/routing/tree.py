"""TreeRouter: experts in levels, general ones over special ones (S'MoRE, arXiv 2504.06426)."""

from itertools import accumulate
from operator import mul
from types import MappingProxyType
from typing import Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from pydantic import Field, model_validator
from torch import Tensor, nn

from lmoe_studio.config import Config, printable
from lmoe_studio.errors import ConfigError, did_you_mean
from lmoe_studio.routing.balance import BalanceGroup
from lmoe_studio.routing.branches import (
    Branches,
    LevelGate,
    branch_logits,
    choices,
    flat,
    heaviest_path,
    node_logits,
    node_weights,
    shifted,
    unflat,
)
from lmoe_studio.routing.parameters import Parameters
from lmoe_studio.routing.router import Notes, Reading, Router, RouterSpec, Scores
from lmoe_studio.routing.settings import RouterSettings

_MOST_LEVELS, _MOST_BRANCHES = 6, 4096


class TreeLevel(Config):
    """The experts of one level, and how many of them are taken under each one above."""

    experts: tuple[str, ...] = Field(min_length=1)
    fan_out: int | None = Field(default=None, ge=1, description="None takes all.")

    @model_validator(mode="after")
    def _has_enough(self) -> Self:
        if (self.fan_out or 0) > len(self.experts):
            raise ValueError(
                f"a fan-out of {self.fan_out} needs as many experts, not {len(self.experts)}"
            )
        return self


class Tree(Config):
    """What a tree router is told."""

    levels: tuple[TreeLevel, ...] = Field(
        min_length=1,
        max_length=_MOST_LEVELS,
        description="From the top. Every expert of the bank stands in one of them.",
    )
    gate: Literal["dot", "cosine"] = Field(
        default="dot",
        description="Cosine logits lie between -1 and 1; a lower temperature sharpens them.",
    )
    width: int = Field(default=32, ge=1, le=4096, description="Of a token's query.")
    key: int = Field(default=32, ge=1, le=4096, description="Of a node's key.")

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        names = [name for level in self.levels for name in level.experts]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"expert '{printable(twice)}' stands in the tree twice")
        branches = sum(accumulate((len(level.experts) for level in self.levels), mul))
        if branches > _MOST_BRANCHES:
            raise ValueError(
                f"these levels make {branches:,} branches, more than {_MOST_BRANCHES:,}; use "
                "fewer levels, or fewer experts in them"
            )
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes of each level."""
        return tuple(len(level.experts) for level in self.levels)

    @property
    def fan_outs(self) -> tuple[int, ...]:
        """Nodes that are taken of each level."""
        return tuple(level.fan_out or len(level.experts) for level in self.levels)


class TreeRouter(Router):
    """A node's logit is the logarithm of its share of the token, its weight what the best branches give it.

    Each level's weights sum to 1. Where a plan changes the logits, what it added is added to the
    node's logit under every path, and the token is routed anew: to close a branch is to bias its
    node down, and what was below it goes elsewhere. A ban acts on weights, so on that node alone.

    Notes: `branches`, every branch's logit; `path`, the experts along the heaviest path, from the
    top, and `path_weight`, its product.

    A new one starts even: with `dot` the last layer's weight is 0, with `cosine` all keys are alike.
    """

    learned = True
    Options = Tree
    only = MappingProxyType(
        {"activation": "softmax", "pool": "token", "top_k": None, "threshold": None}
    )

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        options, make = self.options, Parameters(spec)
        self.query = make.linear("query", (options.width, spec.d_in))
        self.query_bias = make.full("query_bias", (options.width,))
        self.levels = nn.ModuleList(
            _Level(make, depth, options) for depth in range(len(options.levels))
        )
        names = [name for level in options.levels for name in level.experts]
        order = torch.tensor([names.index(name) for name in spec.experts])
        self.register_buffer("order", order, persistent=False)
        self.order: Tensor
        """The node that each expert is."""
        self.register_buffer("places", order.argsort(), persistent=False)
        self.places: Tensor
        """The expert that each node is."""
        firsts = torch.tensor([0, *accumulate(options.sizes)][:-1])
        self.register_buffer("firsts", firsts, persistent=False)
        self.firsts: Tensor
        """The first node of each level."""

    @classmethod
    def saved_shapes(
        cls,
        settings: RouterSettings,
        num_experts: int,  # noqa: ARG003
        d_in: int | None,
    ) -> dict[str, tuple[int | None, ...]]:
        options = Tree.model_validate(settings.options)
        shapes: dict[str, tuple[int | None, ...]] = {
            "query": (options.width, d_in), "query_bias": (options.width,)
        }  # fmt: skip
        for depth, level in enumerate(_gate_shapes(options)):
            shapes |= {f"levels.{depth}.{name}": shape for name, shape in level.items()}
        return shapes

    @classmethod
    def check_experts(cls, options: Tree, experts: tuple[str, ...]) -> None:
        names = [name for level in options.levels for name in level.experts]
        for name in names:
            if name not in experts:
                raise ConfigError(
                    f"The tree of the router: no expert '{printable(name)}'; "
                    f"{did_you_mean(name, experts)}"
                )
        left = next((name for name in experts if name not in names), None)
        if left is not None:
            raise ConfigError(
                f"The tree of the router leaves out the expert '{printable(left)}'; put it into a level."
            )

    def score(self, reading: Reading) -> Scores:
        query = F.linear(reading.hidden, self.query) * reading.shrink + self.query_bias
        gates = [level.gate for level in self.levels if isinstance(level, _Level)]
        branches = branch_logits(query, gates, cosine=self.options.gate == "cosine")
        nodes, share = heaviest_path(self._chosen(branches))
        notes = {
            "branches": flat(branches),
            "path": self.places[nodes + self.firsts],
            "path_weight": share,
        }
        return Scores(self._by_expert(node_logits(branches)), notes)

    def decide(self, logits: Tensor, notes: Notes) -> tuple[Tensor, Tensor]:
        sizes, temperature = self.options.sizes, self.settings.temperature
        branches = unflat(notes["branches"], sizes)
        change = logits.index_select(-1, self.places) - node_logits(branches)
        changed = shifted(branches, change, sizes)
        probs = node_weights(choices(changed, sizes, temperature))
        weights = node_weights(self._chosen(changed))
        return self._by_expert(probs), self._by_expert(weights)

    def _chosen(self, branches: Branches) -> list[Tensor]:
        return choices(branches, self.options.fan_outs, self.settings.temperature)

    def balanced(self, notes: Notes, tokens: Bool[Tensor, "batch seq"]) -> list[BalanceGroup]:
        return [BalanceGroup(level, tokens) for level in self.places.split(self.options.sizes)]

    def _by_expert(self, nodes: Tensor) -> Tensor:
        return nodes.index_select(-1, self.order)


def _gate_shapes(options: Tree) -> list[dict[str, tuple[int, int] | tuple[int]]]:
    """Of each level's parameters: its query has the keys of the levels above behind it."""
    key = options.key
    return [
        {
            "w1": (key, options.width + depth * key),
            "b1": (key,),
            "w2": (key, key),
            "b2": (key,),
            "keys": (size, key),
        }
        for depth, size in enumerate(options.sizes)
    ]


class _Level(nn.Module):
    """The parameters by which one level chooses."""

    def __init__(self, make: Parameters, depth: int, options: Tree) -> None:
        super().__init__()
        is_dot = options.gate == "dot"
        for part, shape in _gate_shapes(options)[depth].items():
            name = f"levels.{depth}.{part}"
            if part == "keys":
                made = make.uniform(name, shape, 0.0 if is_dot else 1.0, 1.0)
            elif len(shape) == 1 or (part == "w2" and is_dot):
                made = make.full(name, shape)
            else:
                made = make.linear(name, shape)
            self.register_parameter(part, made)

    @property
    def gate(self) -> LevelGate:
        return LevelGate(*(self.get_parameter(part) for part in LevelGate._fields))
