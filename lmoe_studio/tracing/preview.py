"""What a plan would make of a trace's routing, by the rules that a run follows; nothing is run."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lmoe_studio.errors import BankMismatchError
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.apply import compile_plans
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.registry import router_class
from lmoe_studio.routing.router import RouterOutput, RouterSpec, TokenBatch
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.routing.settle import PlanRow, needs_text
from lmoe_studio.tracing.records import FloatArray, RoutingTrace
from lmoe_studio.tracing.token_texts import TokenTexts


def refuse_foreign(trace: RoutingTrace, model: MixtureModel) -> None:
    """Refuse a trace that another bank or router made.

    Raises:
        BankMismatchError: names what differs.
    """
    if trace.router is None:
        raise BankMismatchError(
            "The trace was saved by an earlier release, which did not note what the router alone "
            "would have given; trace the text again."
        )
    bank, sites = model.bank, model.sites
    modules = tuple(site.module for site in sites if site.module) or None
    compared = {
        "another bank": (trace.bank, bank.name),
        "another base model": (trace.base, bank.base.id),
        "other experts": (trace.experts, bank.expert_names),
        "another router": (trace.router, bank.router.model_dump_json()),
        "other layers": (trace.site_layers, tuple(site.layer for site in sites)),
        "other modules": (trace.site_modules, modules),
    }
    for what, (traced, loaded) in compared.items():
        if traced != loaded:
            raise BankMismatchError(
                f"The trace was made with {what}, {_said(traced)}; loaded is {_said(loaded)}. Trace "
                "the text again, or load what it was made with."
            )


@torch.inference_mode()
def preview_weights(
    trace: RoutingTrace,
    plan: RoutingPlan,
    *,
    router: RouterSettings,
    num_layers: int,
    texts: TokenTexts,
) -> FloatArray:
    """The weights `[position, site, expert]` that a plan makes of what the routers said in a trace.

    Works on the CPU wherever the model is, so that it waits for no one who uses the model.

    Args:
        trace: what the routers said; its own plan, if any, is left aside.
        plan: what to change.
        router: the settings of the router that made the trace.
        num_layers: decoder blocks of the model.
        texts: gives the tokens' texts, for scopes that are about them.

    Raises:
        PlanError: the plan does not fit the bank.
    """
    compiled = compile_plans(
        [_settled(plan, trace, texts)],
        experts=trace.experts,
        num_layers=num_layers,
        tokens=_tokens(trace),
    )
    if compiled is None:
        return trace.router_weights
    kind = router_class(router.kind)(RouterSpec(router, trace.experts, d_in=1, state={}))
    said = (trace.router_logits, trace.router_probs, trace.router_weights)
    by_site = zip(*(torch.tensor(one.swapaxes(0, 1)) for one in said), strict=True)
    noted = {name: torch.tensor(values) for name, values in trace.notes.items()}
    weights = []
    for site, (layer, cells) in enumerate(zip(trace.site_layers, by_site, strict=True)):
        notes = {name: values[None, :, site] for name, values in noted.items()}
        output = _output(cells, partial(kind.gate, notes=notes))
        weights.append(compiled.apply(layer, output))
    return torch.cat(weights).transpose(0, 1).contiguous().numpy()


def _output(said: tuple[Tensor, ...], gate: Callable[[Tensor], Tensor]) -> RouterOutput:
    logits, probs, weights = (one[None] for one in said)
    return RouterOutput(logits, probs, weights, gate)


def _tokens(trace: RoutingTrace) -> TokenBatch:
    ids = torch.tensor(trace.token_ids, dtype=torch.long)[None]
    generated = torch.tensor(trace.generated)[None]
    return TokenBatch(
        ids,
        positions=torch.arange(len(trace))[None],
        is_token=torch.ones_like(generated),
        steps=torch.where(generated, generated.cumsum(dim=-1) - 1, -1),
    )


def _settled(plan: RoutingPlan, trace: RoutingTrace, texts: TokenTexts) -> RoutingPlan | None:
    if not needs_text(plan):
        return plan
    ids, start = trace.token_ids.tolist(), len(trace) - int(trace.generated.sum())
    prompt = ids[:start]
    written = texts.parts(ids[start:], after=prompt[-1:])
    return PlanRow(texts.parts(prompt)).for_continuation(plan, written)


def _said(value: object) -> str:
    """Short enough for a sentence."""
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 200 else text[:199] + "…"
