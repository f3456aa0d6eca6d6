"""What a plan and a trace cost while decoding: against plain PEFT LoRA and `model.generate`.

    python -m benchmarks.decode [--json out.json]

The real SmolLM2, N = 8, r = 8, every linear layer; 64 greedy tokens after 128. All variants run in
one process, interleaved, in an order drawn anew each round; medians, and ratios within a round.
"""

import argparse
import json
import platform
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.overhead import measure, plain_lora, random_bank
from lmoe_studio.base_models import load_base
from lmoe_studio.routing.plan import Override, RoutingPlan, Span
from lmoe_studio.studio import Studio

PLAN = RoutingPlan(
    [
        Override.solo("e3", layers=Span(start=10), tokens="generated", strength=0.5),
        Override.ban("e1"),
    ]
)


def main() -> None:
    """Measure and print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    bases = [load_base(device="cpu") for _ in range(3)]
    studio = Studio(bases[1], random_bank(bases[1], 8, 8))
    for model in bases:  # no end before the length
        model.model.generation_config.eos_token_id = None
    studio.tokenizer.eos_token = None
    lora: Any = plain_lora(bases[2], 64)
    ids = torch.randint(0, 40000, (1, options.prompt_tokens))
    prompt = "".join(" a" for _ in range(options.prompt_tokens))
    limits = {"max_new_tokens": options.new_tokens, "min_new_tokens": options.new_tokens}

    def theirs(model: Any) -> Callable[[], object]:
        mask = torch.ones_like(ids)
        return lambda: model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=0, **limits
        )

    def ours(**choices: Any) -> Callable[[], object]:
        return lambda: studio.generate(prompt, max_new_tokens=options.new_tokens, **choices)

    made = studio.generate(prompt, max_new_tokens=options.new_tokens, trace=False)
    assert len(made.token_ids) == options.new_tokens
    times = measure(
        {
            "base model, generate": theirs(bases[0].model),
            "PEFT LoRA, rank 64, generate": theirs(lora),
            "L-MoE 8 × rank 8": ours(trace=False),
            "L-MoE, plan": ours(trace=False, plan=PLAN),
            "L-MoE, plan and trace": ours(trace=True, plan=PLAN),
            "L-MoE, 8 plans in one batch": lambda: studio.compare(
                prompt,
                {f"e{n}": RoutingPlan([Override.solo(f"e{n}")]) for n in range(8)},
                base=False,
                max_new_tokens=options.new_tokens,
                trace=False,
            ),
        },
        options.rounds,
    )
    reference = times["PEFT LoRA, rank 64, generate"]
    results = {
        name: {
            "median_s": statistics.median(values),
            "to_lora": statistics.median(a / b for a, b in zip(values, reference, strict=True)),
        }
        for name, values in times.items()
    }
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{options.new_tokens} tokens after {options.prompt_tokens}"
    )
    for name, row in results.items():
        print(f"{name:32} {row['median_s']:8.2f} s   {row['to_lora']:.3f} × LoRA")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
