"""The cross-term meter: how far the two compositions differ on a text."""

from typing import Any

import pandas as pd
import torch

from lmoe_studio.errors import AdapterError
from lmoe_studio.experts.layer import BankLayer
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.given import PlansLike


@torch.inference_mode()
def composition_gap(model: MixtureModel, ids: list[int], *, plan: PlansLike = None) -> pd.DataFrame:
    """Both compositions of every bank layer's update, on what the layer reads in one forward pass.

    The pass itself uses the bank's own composition, so each layer is measured where it is, not
    after a difference that the layers before it made. See `Studio.composition_gap`.
    """
    for layer in model.bank_layers.values():
        ranks = {rank for rank in layer.layout.ranks if rank}
        if len(ranks) > 1:
            raise AdapterError(
                f"The experts have different ranks in {layer.name} "
                f"({', '.join(map(str, sorted(ranks)))}), so composition 'factor' does not exist."
            )
    rows = list[dict[str, Any]]()

    def listen(layer: Any, args: tuple[Any, ...]) -> None:
        _measure(rows, layer, args)

    hooks = [layer.register_forward_pre_hook(listen) for layer in model.bank_layers.values()]
    device = next(model.parameters()).device
    try:
        model(torch.tensor([ids], device=device), plan=plan, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    frame = pd.DataFrame(rows)
    return frame.sort_values("layer", kind="stable", ignore_index=True)


def _measure(rows: list[dict[str, Any]], layer: BankLayer, args: tuple[Any, ...]) -> None:
    x = args[0]
    weights = layer.routing_weights(x)
    if weights is None:
        return
    reader = layer.in_pass(*args)
    mixed = {kind: reader.mix(x, weights, kind) for kind in ("output", "factor")}
    output, factor = reader.update_norm(mixed["output"]), reader.update_norm(mixed["factor"])
    apart = reader.update_norm(mixed["output"] - mixed["factor"])
    number = next(int(part) for part in layer.name.split(".") if part.isdigit())
    rows.append(
        {
            "layer": number,
            "module": layer.name,
            "output": output,
            "factor": factor,
            "gap": apart / output if output else float("nan"),
        }
    )
