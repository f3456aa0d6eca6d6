"""Routes: which experts a text will go through, known before anything is run, and asked of a run."""

import numpy as np
import pandas as pd
import torch

from lmoe_studio.errors import PlanError
from lmoe_studio.mixture.base_pass import token_batch
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.tracing.token_texts import TokenTexts

_COLUMNS = ("position", "layer", "expert", "weight")


@torch.no_grad()
def known_routes(model: MixtureModel, texts: TokenTexts, ids: list[int]) -> pd.DataFrame:
    """The weights that every token of a text will have, one row a position × layer × expert.

    Args:
        model: the routed model, whose routers read ids alone.
        texts: gives the tokens' texts.
        ids: the text's token ids.

    Returns:
        position (int32), token (str), layer (int16), expert (category, in the bank's order), weight
        (float32).

    Raises:
        ConfigError: the routers read hidden states.
    """
    device = next(model.parameters()).device
    tokens = token_batch(torch.tensor([ids], device=device), None, None, 0)
    weights = model.known_routing(tokens).weights[0].float().cpu().numpy()
    positions, sites, experts = weights.shape
    names = list(model.bank.expert_names)
    layers = np.array([site.layer for site in model.sites], np.int16)
    return pd.DataFrame(
        {
            "position": np.repeat(np.arange(positions, dtype=np.int32), sites * experts),
            "token": np.repeat(np.array(texts.sequence(ids), dtype=object), sites * experts),
            "layer": np.tile(np.repeat(layers, experts), positions),
            "expert": pd.Categorical(names * (positions * sites), categories=names),
            "weight": weights.ravel(),
        }
    )


def plan_of_routes(routes: pd.DataFrame) -> RoutingPlan:
    """The plan that gives each token the weights of a frame of routes, as it came or edited.

    Positions and layers with the same weights share one override; a cell that is not in the frame is
    left to the router.

    Args:
        routes: needs position, layer, expert and weight, as in `known_routes`.

    Raises:
        PlanError: a column is missing, an expert stands twice at one place, a weight is none that a
            plan can give, or there are more different weights than a plan holds overrides.
    """
    missing = [name for name in _COLUMNS if name not in routes]
    if missing:
        raise PlanError(
            f"The routes have no column {', '.join(missing)}; expected {', '.join(_COLUMNS)}, as "
            "route_plan gives them."
        )
    twice = routes.duplicated(["position", "layer", "expert"])
    if twice.any():
        first = routes[twice].iloc[0]
        raise PlanError(
            f"The routes name expert '{first['expert']}' twice at position {first['position']}, layer "
            f"{first['layer']}; give each expert one weight there."
        )
    cells = routes[routes["weight"] != 0].groupby(["layer", "position"], observed=True)
    chosen = {place: tuple(zip(one["expert"], one["weight"], strict=True)) for place, one in cells}
    places: dict[int, dict[tuple[tuple[str, float], ...], list[int]]] = {}
    for layer, position in sorted(set(zip(routes["layer"], routes["position"], strict=True))):
        here = places.setdefault(int(layer), {})
        here.setdefault(chosen.get((layer, position), ()), []).append(int(position))
    layers: dict[tuple[tuple[tuple[str, float], ...], tuple[int, ...]], list[int]] = {}
    for layer, found in places.items():
        for weights, positions in found.items():
            layers.setdefault((weights, tuple(positions)), []).append(layer)
    return RoutingPlan(
        Override.pin(_weights(weights), renormalise=False, layers=of, tokens=positions)
        if weights
        else Override.bypass(layers=of, tokens=positions)
        for (weights, positions), of in layers.items()
    )


def _weights(weights: tuple[tuple[str, float], ...]) -> dict[str, float]:
    return {str(name): float(weight) for name, weight in weights}
