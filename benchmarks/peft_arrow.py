"""How far PEFT's Arrow chooses other experts than ours, on the same hidden states: docs/peft.md.

    python -m benchmarks.peft_arrow

Both score an expert by |x · v|, with v the direction that its update amplifies most. Ours is the
exact singular vector; PEFT's is 15 steps of power iteration from a random start.
"""

from collections.abc import Iterator

import torch
from peft import ArrowConfig
from peft.tuners.lora.arrow import ArrowLoraLinearLayer
from torch import Tensor, nn

import lmoe_studio as lmoe
from lmoe_studio.experts.lora import LoraFactors
from lmoe_studio.routing.arrow import prototype

TEXTS = (
    "SELECT name, count(*) FROM users JOIN orders USING (id) GROUP BY name ORDER BY 2 DESC;",
    "def mean(values):\n    return sum(values) / len(values)\n\nprint(mean([1, 2, 3]))",
    "Marsella es una ciudad portuaria del sur de Francia, capital del departamento.",
    "Mix the flour, salt and baking powder; stir in the milk and fry until golden brown.",
)


def peft_prototype(factors: LoraFactors, seed: int = 0) -> Tensor:
    """The direction `[d_in]` that PEFT finds for one expert at one layer."""
    config = ArrowConfig(top_k=1, rng_seed=seed)
    config.task_adapter_names = []  # which PEFT's create_arrow_model fills in
    layer = ArrowLoraLinearLayer(factors.a.shape[1], config)
    return layer.top_right_singular_vec_from_BA(factors.a, factors.b)


def inputs_of(studio: "lmoe.Studio", text: str) -> Iterator[tuple[str, Tensor]]:
    """What each target linear of the base model reads, `[token, d_in]`, no expert in force."""
    seen = dict[str, Tensor]()
    model: nn.Module = studio.model.base

    def keep(name: str) -> object:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[name] = args[0].detach().flatten(0, -2).float()

        return hook

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(keep(name))  # pyright: ignore[reportArgumentType]
        for name in studio.bank.modules
    ]
    try:
        studio.trace(text, plan=lmoe.RoutingPlan([lmoe.Override.bypass()]))
    finally:
        for hook in hooks:
            hook.remove()
    yield from seen.items()


def main() -> None:
    """Measure on the demo bank, and print."""
    studio = lmoe.Studio.load("demo", device="cpu")
    adapters = [expert.adapter for expert in studio.bank.experts]
    cosines, same, tokens = list[float](), 0, 0
    ours = dict[str, Tensor]()
    theirs = dict[str, Tensor]()
    for module in studio.bank.modules:
        factors = [adapter.factors[module] for adapter in adapters]
        ours[module] = torch.stack([prototype(one.a, one.b) for one in factors])
        theirs[module] = torch.stack([peft_prototype(one) for one in factors])
        cosines += (ours[module] * theirs[module]).sum(-1).abs().tolist()
    for text in TEXTS:
        for module, hidden in inputs_of(studio, text):
            one, other = ((hidden @ v.T).abs().argmax(-1) for v in (ours[module], theirs[module]))
            same += int((one == other).sum())
            tokens += len(one)
    below = sum(cosine < 0.99 for cosine in cosines) / len(cosines)
    print(f"|cos| of PEFT's directions with the exact ones: least {min(cosines):.2f}, "
          f"{below:.1%} of {len(cosines):,} below 0.99")  # fmt: skip
    print(f"the same first expert: {same / tokens:.3f} of {tokens:,} tokens and layers")


if __name__ == "__main__":
    main()
