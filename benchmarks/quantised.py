"""What a quantised base costs and saves on this machine, under a bank: memory, loss and time.

    python -m benchmarks.quantised [--bank demo]

Losses are means over the tokens of the short texts that the tests hold out, three for each skill of
the demo bank. Times are of one text at a time: medians of interleaved rounds, over those of float32.
"""

import argparse
import platform

import torch

from benchmarks.speed.measure import Case, Effort, interleave, ratios
from lmoe_studio.causal.token_losses import token_losses
from lmoe_studio.config import Quantize
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.studio import Studio
from tests.held_out_texts import TEXTS

KINDS: dict[str, Quantize | None] = {"float32": None, "8bit": "8bit", "4bit": "4bit"}
BASE_ALONE = RoutingPlan([Override.bypass()])


def megabytes(studio: Studio) -> float:
    """Of the base's weights with all that quantising them adds."""
    tensors = studio.base.model.state_dict().values()
    own = {tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(own.values()) / 1e6


def losses(studio: Studio) -> tuple[float, float]:
    """Nats a token of the base alone and under the router."""
    sums, tokens = torch.zeros(2), 0
    for text in (text for texts in TEXTS.values() for text in texts):
        [found] = token_losses(studio.model, [studio.tokenizer(text).input_ids], [BASE_ALONE, None])
        sums += found.sum(dim=1)
        tokens += found.shape[1]
    base, bank = (sums / tokens).tolist()
    return base, bank


@torch.inference_mode()
def prompt(studio: Studio, ids: torch.Tensor) -> None:
    """Read a prompt."""
    studio.model(ids, logits_to_keep=1)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", default="demo")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    studios = {
        name: Studio.load(options.bank, device="cpu", dtype="float32", quantize=quantize)
        for name, quantize in KINDS.items()
    }
    ids = torch.tensor([studios["float32"].tokenizer(" ".join(TEXTS["french"])).input_ids[:128]])
    times = {
        what: interleave(
            {name: Case(lambda _, s=s, ids=part: prompt(s, ids)) for name, s in studios.items()},
            Effort(rounds=15, seconds=options.seconds),
        )
        for what, part in (("prompt", ids), ("token", ids[:, :1]))
    }
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, prompt {ids.shape[1]} tokens")
    print("base     MB    loss, base  loss, bank  prompt   one token   (× the time of float32)")
    for name, studio in studios.items():
        base, bank = losses(studio)
        cost = [str(ratios(times[what][name], times[what]["float32"])) for what in times]
        print(f"{name:8} {megabytes(studio):5.0f} {base:10.3f} {bank:11.3f}   {'   '.join(cost)}")


if __name__ == "__main__":
    main()
