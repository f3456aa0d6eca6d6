"""What must hold for a bank over a base of any architecture: every check against PEFT or the base.

Each gives the largest difference of logits that it found, and raises where words or shapes differ.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel

from lmoe_studio.architecture import layer_shapes, reads_on_singly
from lmoe_studio.base_models import load_base
from lmoe_studio.importing import import_adapters, import_router
from lmoe_studio.mixture.base_pass import run_base, token_batch
from lmoe_studio.routing.plan import Override
from lmoe_studio.studio import Studio
from lmoe_studio.training.config import SkillConfig, TrainingConfig
from lmoe_studio.training.run import run_training
from zoo.adapters import with_peft, write_adapters
from zoo.bases import build, write_base

TEXT = "SELECT 1; the quick brown fox jumps."
SHORT = "Two plus two"
NEW = 12


@dataclass
class Kept:
    """One base, its adapters, and the bank of them."""

    name: str
    folder: Path
    base: torch.nn.Module
    adapters: dict[str, Path]
    studio: Studio

    def ids(self, text: str = TEXT) -> torch.Tensor:
        return torch.tensor([self.studio.tokenizer(text)["input_ids"]])

    def peft(self, expert: str) -> PeftModel:
        return with_peft(self.base, self.adapters[expert])


def keep(name: str, folder: Path, router: str = "arrow") -> Kept:
    """Write a base and adapters, import them, and load the bank. Raises LMoEError."""
    write_base(name, folder / "base")
    base = load_base(str(folder / "base"), device="cpu").model
    adapters = write_adapters(build(name) if type(base) is type(build(name)) else base, folder)
    out = folder / f"bank-{router}"
    import_adapters(adapters, out, base=str(folder / "base"), router=import_router(router))
    return Kept(name, folder, base, adapters, Studio.load(out, device="cpu"))


@torch.inference_mode()
def solo(kept: Kept) -> float:
    """Each expert alone is what PEFT makes of its adapter."""
    ids, base, worst = kept.ids(), kept.base(kept.ids()), 0.0
    for name in kept.adapters:
        peft = kept.peft(name)(ids)
        if _apart(peft.logits, base) < 1e-3:
            raise AssertionError(f"{name} does next to nothing")
        mine = kept.studio.model(ids, plan=Override.solo(name)).logits
        worst = max(worst, _apart(mine, peft))
    return worst


@torch.inference_mode()
def bypass(kept: Kept) -> float:
    ids = kept.ids()
    return _apart(kept.studio.model(ids, plan=Override.bypass()).logits, kept.base(ids))


@torch.inference_mode()
def cached(kept: Kept) -> float:
    """A text read at once, in pieces, and token by token; less twice what the base is off."""
    ids, model = kept.ids(), kept.studio.model
    worst = 0.0
    for cuts in ([*range(20, ids.shape[1])], [7, 30]):
        past, parts = None, []
        for start, stop in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
            output = model(ids[:, start:stop], past_key_values=past, use_cache=True)
            past = output.past_key_values
            parts.append(output.logits)
        found = float((torch.cat(parts, dim=1) - model(ids).logits).abs().max())
        if found > ROOM["cached"]:
            found = max(found - 2 * _own_error(kept, cuts), 0.0)
        worst = max(worst, found)
    return worst


@torch.inference_mode()
def _own_error(kept: Kept, cuts: list[int]) -> float:
    """How far transformers itself is from a text read at once, where it reads on as we do."""
    ids, past, parts = kept.ids(), None, []
    if reads_on_singly(kept.base):
        return 0.0
    for start, stop in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        tokens = token_batch(ids[:, start:stop], None, None, start)
        output = run_base(
            kept.base, tokens, None, cache=past, use_cache=True, logits_to_keep=0
        )  # fmt: skip
        past = output.cache
        parts.append(output.logits)
    return float((torch.cat(parts, dim=1) - kept.base(ids).logits).abs().max())


def greedy(kept: Kept) -> float:
    """Each expert alone writes what `PeftModel.generate` writes."""
    for name in kept.adapters:
        written = kept.studio.generate(TEXT, plan=Override.solo(name), max_new_tokens=NEW)
        ids = kept.ids()
        peft = kept.peft(name).generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False
        )[0, ids.shape[1] :]
        text = kept.studio.tokenizer.decode(peft, skip_special_tokens=True)
        if written.text != text:
            raise AssertionError(f"{name}: {written.text!r} and not {text!r}")
    return 0.0


@torch.inference_mode()
def padded(kept: Kept) -> float:
    """A text padded on either side, beside a longer one, is the text alone."""
    long, short, model = kept.ids(), kept.ids(SHORT), kept.studio.model
    room, size = long.shape[1] - short.shape[1], short.shape[1]
    alone, worst = model(short).logits, 0.0
    for left in (True, False):
        empty = torch.zeros(1, room, dtype=torch.long)
        row = torch.cat([empty, short] if left else [short, empty], dim=1)
        there = torch.cat([empty, short * 0 + 1] if left else [short * 0 + 1, empty], dim=1)
        mask = torch.cat([torch.ones_like(long), there])
        logits = model(torch.cat([long, row]), attention_mask=mask).logits[1:]
        part = logits[:, room:] if left else logits[:, :size]
        worst = max(worst, float((part - alone).abs().max()))
    return worst


def together(kept: Kept) -> float:
    """Rows with plans of their own write what each plan writes alone."""
    plans = {name: Override.solo(name) for name in kept.adapters} | {"router": None}
    runs = kept.studio.compare(TEXT, plans, max_new_tokens=NEW).runs
    for name, plan in plans.items():
        alone = kept.studio.generate(TEXT, plan=plan, max_new_tokens=NEW)
        if runs[name].text != alone.text:
            raise AssertionError(f"{name}: {runs[name].text!r} and not {alone.text!r}")
    return 0.0


def merged(kept: Kept) -> float:
    blend = dict.fromkeys(list(kept.adapters)[:2], 0.5)
    one = kept.studio.merge(blend, out=kept.folder / "merged")
    full = kept.studio.merge(blend, out=kept.folder / "full", full=True)
    return max(one.max_difference, full.max_difference)


@torch.inference_mode()
def folded(kept: Kept) -> float:
    plan, ids = Override.uniform(), kept.ids()
    live = kept.studio.model(ids, plan=plan).logits
    with kept.studio.fold(plan):
        return float((kept.studio.model(ids).logits - live).abs().max())


def traced(kept: Kept) -> float:
    """The trace's scores are those of the logits; corpora and losses run."""
    trace = kept.studio.trace(TEXT, contributions=True)
    ids = kept.ids()
    with torch.inference_mode():
        scores = kept.studio.model(ids).logits.log_softmax(dim=-1)[0, :-1]
    expected = scores.gather(1, ids[0, 1:, None])[:, 0]
    kept.studio.trace_corpus([TEXT, SHORT], labels=["a", "b"], out=kept.folder / "corpus")
    losses = kept.studio.evaluate([TEXT, SHORT]).table()
    if not losses.notna().any().any():
        raise AssertionError("no losses")
    return float((torch.tensor(trace.logprobs[1:]) - expected).abs().max())


def trained(kept: Kept) -> float:
    """Two steps of training run, and the bank that they write is loaded."""
    rows = kept.folder / "rows.txt"
    rows.write_text("\n\n".join([TEXT * 4, SHORT * 9] * 12))
    shapes = layer_shapes(kept.base)
    targets = sorted(
        {".".join(name.split(".")[1 - len(shapes[name]) :]) for name in kept.studio.bank.modules}
    )
    config = TrainingConfig(
        name="trained", base=str(kept.folder / "base"), out=kept.folder / "trained",
        steps=2, batch_size=2,
        sequence_length=32, rank=2, device="cpu", target_modules=tuple(targets),
        skills=tuple(SkillConfig(name=name, train=(str(rows),)) for name in ("one", "two")),
    )  # fmt: skip
    bank = run_training(config)
    studio = Studio.load(config.out, device="cpu")
    assert bank.expert_names == studio.bank.expert_names
    assert math.isfinite(studio.trace(SHORT).logprobs[-1])
    return 0.0


CHECKS: dict[str, Callable[[Kept], float]] = {
    "solo": solo, "bypass": bypass, "greedy": greedy, "cached": cached, "padded": padded,
    "together": together, "merged": merged, "folded": folded, "traced": traced,
    "trained": trained,
}  # fmt: skip
ROOM = {"cached": 1e-5, **dict.fromkeys(CHECKS.keys() - {"cached"}, 2e-5)}
"""How far logits may be apart."""


def run(kept: Kept) -> dict[str, float | str]:
    """Every check: a difference, or what went wrong."""
    found: dict[str, float | str] = {}
    for name, check in CHECKS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = check(kept)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return found


def _apart(logits: torch.Tensor, output: object) -> float:
    return float((logits - output.logits).abs().max())  # type: ignore[attr-defined]
