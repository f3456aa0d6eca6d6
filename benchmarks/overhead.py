"""What routing costs: forward pass and tracing against a plain PEFT LoRA of the same total rank.

    python -m benchmarks.overhead [--json out.json]

The real SmolLM2, N = 8, r = 8, every linear layer, 256 tokens. All variants run in one process,
interleaved, in an order drawn anew each round; medians, and ratios within a round.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from lmoe_studio.base_models import BaseModel, load_base
from lmoe_studio.config import RouterSettings
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.mixture import MixtureModel
from lmoe_studio.tracing.recorder import record_prompt
from lmoe_studio.tracing.token_texts import TokenTexts

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def random_bank(base: BaseModel, experts: int, rank: int) -> ExpertBank:
    """Small random experts on every linear layer of every block."""
    shapes = base.identity.linear_shapes or {}
    found = []
    for index in range(experts):
        factors = {
            name: LoraFactors(torch.randn(rank, d_in) * 0.02, torch.randn(d_out, rank) * 0.02, 2.0)
            for name, (d_out, d_in) in shapes.items()
            if name.rsplit(".", 1)[-1] in LINEARS
        }
        found.append(Expert(f"e{index}", LoraAdapter(factors)))
    return ExpertBank("random", base.identity, tuple(found), RouterSettings())


def plain_lora(base: BaseModel, rank: int) -> torch.nn.Module:
    """PEFT's LoRA of one rank on the same layers."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LINEARS, task_type="CAUSAL_LM")
    return get_peft_model(base.model, config).eval()


def measure(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round, after two rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(-2, rounds):
        for name in random.sample(list(variants), len(variants)):
            start = time.perf_counter()
            variants[name]()
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    bases = [load_base(device="cpu") for _ in range(3)]
    model = MixtureModel(bases[1].model, random_bank(bases[1], 8, 8)).eval()
    lora = plain_lora(bases[2], 64)
    ids = torch.randint(0, 40000, (1, options.tokens))
    tokens = ids[0].tolist()
    texts = TokenTexts(bases[0].tokenizer)

    def forward(run: Callable[[], object]) -> Callable[[], object]:
        return torch.inference_mode()(run)

    times = measure(
        {
            "base model": forward(lambda: bases[0].model(ids)),
            "PEFT LoRA, rank 64": forward(lambda: lora(ids)),
            "L-MoE 8 × rank 8": forward(lambda: model(ids)),
            "L-MoE, weights recorded": forward(lambda: model(ids, record=True)),
            "L-MoE, full trace with token scores": lambda: record_prompt(model, texts, tokens),
        },
        options.rounds,
    )
    reference = times["PEFT LoRA, rank 64"]
    own = times["L-MoE 8 × rank 8"]
    results = {
        name: {
            "median_s": statistics.median(values),
            "to_lora": statistics.median(a / b for a, b in zip(values, reference, strict=True)),
            "to_untraced": statistics.median(a / b for a, b in zip(values, own, strict=True)),
        }
        for name, values in times.items()
    }
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {options.tokens} tokens")
    for name, row in results.items():
        print(
            f"{name:38} {row['median_s'] * 1e3:8.1f} ms   {row['to_lora']:.3f} × LoRA"
            f"   {row['to_untraced']:.3f} × untraced"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
