"""How a bank does on held-out text: loss by skill, and how its routing separates the skills."""

from dataclasses import dataclass

import pandas as pd
import torch

from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.given import PlansLike
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.tracing.batches import batches_of_like_length
from lmoe_studio.training.data import SkillData, collate
from lmoe_studio.training.language_loss import learned_tokens, summed_loss

BASE_ALONE = RoutingPlan([Override.bypass()])


@dataclass(frozen=True)
class Evaluation:
    """Held-out results of one bank under one plan."""

    losses: dict[str, float]
    """Nats a token, by skill."""
    shares: pd.DataFrame
    """Mean routing weight: columns sequence, label, layer, expert, weight (and module)."""

    @property
    def mean(self) -> float:
        return sum(self.losses.values()) / len(self.losses)


@torch.no_grad()
def evaluate(
    model: MixtureModel, skills: list[SkillData], *, batch_size: int = 4, plan: PlansLike = None
) -> Evaluation:
    """Run every held-out example once, with the router or under a plan.

    A batch holds as many tokens as `batch_size` of a skill's longest.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    losses, shares, sequence = {}, [], 0
    for label, skill in enumerate(skills):
        total, count = 0.0, 0
        longest = max(map(len, skill.held_out))
        for examples in batches_of_like_length(skill.held_out, len, batch_size * longest):
            rows = [{"example": example, "skill": label} for example in examples]
            batch = {name: tensor.to(device) for name, tensor in collate(rows).items()}
            mask = batch["attention_mask"]
            output = model(batch["input_ids"], mask, steps=batch["steps"], plan=plan, record=True)
            total += float(summed_loss(output.logits, batch["labels"]))
            count += int(learned_tokens(batch["labels"]))
            weights = output.routing.weights * mask[:, :, None, None]
            mean = weights.sum(1) / mask.sum(1)[:, None, None]
            shares += [_rows(model, sequence + i, skill.name, row) for i, row in enumerate(mean)]
            sequence += len(rows)
        losses[skill.name] = total / count
    model.train(was_training)
    return Evaluation(losses, pd.concat(shares, ignore_index=True))


def _rows(model: MixtureModel, sequence: int, label: str, mean: torch.Tensor) -> pd.DataFrame:
    sites, experts = mean.shape
    frame = pd.DataFrame(
        {
            "sequence": sequence,
            "label": label,
            "layer": [site.layer for site in model.sites for _ in range(experts)],
            "expert": list(model.bank.expert_names) * sites,
            "weight": mean.float().cpu().flatten().numpy(),
        }
    )
    if model.sites[0].module is not None:
        frame["module"] = [site.module for site in model.sites for _ in range(experts)]
    return frame
