"""build_memory: labelled examples become the memory of a knn router; nothing is trained (RTD)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lmoe_studio.arguments import whole_number
from lmoe_studio.base_models import BaseModel, over_same_weights
from lmoe_studio.errors import ConfigError, TextError, did_you_mean, kind_of
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.knn import check_heads
from lmoe_studio.routing.neighbours import usual_temperature
from lmoe_studio.routing.plan import Override
from lmoe_studio.routing.router import Reading
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.batches import batches_of_like_length, padded
from lmoe_studio.tracing.corpus_sources import CorpusLike, opened_corpus
from lmoe_studio.tracing.token_ids import TokenIds

_READ = 16  # tokens that are read for each key, so that keys come from several texts
_PASS = 2048  # tokens of one pass
_EXCERPT = 16  # tokens that are shown of an example, its own the last


@dataclass(frozen=True)
class _Text:
    """Token ids of an example, its expert, and the positions whose states are keys."""

    ids: Sequence[int]
    expert: int
    chosen: Sequence[int]


def build_memory(
    base: BaseModel,
    bank: ExpertBank,
    examples: Mapping[str, CorpusLike],
    *,
    settings: RouterSettings | None = None,
    per_expert: int = 64,
    text_column: str = "text",
) -> ExpertBank:
    """The bank under a router of kind `knn` that goes by the nearest examples.

    Keys are the states that the router reads where no expert acts, of as many tokens for each expert,
    spread over the beginning of its examples; never of a text's first token, which all texts share.

    Args:
        base: the bank's base model, which is left as it is.
        bank: the experts; their router is replaced.
        examples: by the name of each expert, texts that it is for: a list, a file, a dataset.
        settings: of kind `knn`; None takes the usual ones.
        per_expert: the most keys for each; fewer where an expert's examples have no more tokens.
        text_column: of files and datasets.

    Returns:
        The bank; `training["memory"]` tells for each key the expert, the position and an excerpt.

    Raises:
        ConfigError: a name is no expert, an expert has no examples, or the settings are of another kind.
        TextError: an expert's examples have no text of two tokens.
        HubError, DataError: examples cannot be had.
        BankError: the states cannot be cut into as many heads.
    """
    count = whole_number(per_expert, "per_expert", least=1, most=4096)
    settings = settings or RouterSettings(kind="knn")
    if settings.kind != "knn":
        raise ConfigError(f"A memory is for a router of kind 'knn', not '{settings.kind}'.")
    _require_each(bank.expert_names, examples)
    read = {name: _read(base, given, text_column) for name, given in examples.items()}
    texts = batches_of_like_length(_chosen(bank, read, count), lambda text: len(text.ids), _PASS)
    model = MixtureModel(
        over_same_weights(base.model), bank.with_router(settings), new_routers=True
    ).eval()
    keys = _states(model, texts)
    sources = [source for batch in texts for source in _sources(base, bank, batch)]
    labels = torch.tensor([text.expert for batch in texts for text in batch for _ in text.chosen])
    options = settings.options
    for found in keys.values():
        check_heads(found.shape[1], options["heads"])
    state = {
        f"{place}.{name}": tensor
        for place, found in keys.items()
        for name, tensor in {
            "keys": found,
            "labels": labels.float(),
            "sources": torch.arange(len(labels)).float(),
            "usual_temperature": torch.tensor(
                [usual_temperature(found, options["k"], options["heads"])]
            ),
        }.items()
    }
    report = (bank.training or {}) | {"memory": sources}
    return replace(bank.with_router(settings, state), training=report)


def _require_each(experts: Sequence[str], examples: object) -> None:
    if not isinstance(examples, Mapping):
        raise ConfigError(
            f"The examples are {kind_of(examples)}; expected texts by expert, as in "
            "{'sql': ['SELECT 1']}."
        )
    for name in examples:
        if name not in experts:
            raise ConfigError(f"Examples are given for '{name}'; {did_you_mean(name, experts)}")
    missing = next((name for name in experts if name not in examples), None)
    if missing is not None:
        raise ConfigError(
            f"Expert '{missing}' has no examples, so that a knn router would never take it; give it a "
            "text that it is for."
        )


def _read(base: BaseModel, given: CorpusLike, text_column: str) -> list[list[int]]:
    """Token ids of each text, as far as the model can read it."""
    ids, most = TokenIds(base.tokenizer, base.context_length), base.context_length
    with opened_corpus(given, text_column=text_column) as corpus:
        return [
            ids.first_of_chat(item.turns, most) if item.turns else ids.first(item.text, most)
            for item in corpus
        ]


def _chosen(
    bank: ExpertBank, examples: Mapping[str, Sequence[Sequence[int]]], most: int
) -> list[_Text]:
    """What is read of each expert's examples, and the tokens that become keys: of all as many."""
    experts = bank.expert_names
    read = {name: list(_beginning(examples[name], most * _READ)) for name in experts}
    tokens = {name: sum(len(text) - 1 for text in texts) for name, texts in read.items()}
    empty = next((name for name, count in tokens.items() if not count), None)
    if empty is not None:
        raise TextError(f"The examples of '{empty}' have no text of two tokens; give longer ones.")
    count = min(most, *tokens.values())
    found = list[_Text]()
    for index, name in enumerate(experts):
        wanted = [(place * tokens[name]) // count for place in range(count)]
        before = 0
        for text in read[name]:
            here = [1 + one - before for one in wanted if before <= one < before + len(text) - 1]
            before += len(text) - 1
            if here:
                found.append(_Text(text[: here[-1] + 1], index, here))
    return found


def _beginning(texts: Sequence[Sequence[int]], tokens: int) -> Iterator[Sequence[int]]:
    for text in texts:
        if tokens > 0 and len(text) > 1:
            yield text[: tokens + 1]
            tokens -= len(text) - 1


@torch.inference_mode()
def _states(model: MixtureModel, batches: Sequence[Sequence[_Text]]) -> dict[str, Tensor]:
    """By place, what its router reads of the chosen tokens `[key, d_in]`, in the order of the texts."""
    device = next(model.parameters()).device
    found = {place: list[Tensor]() for place in model.router_places}
    for batch in batches:
        ids, mask = padded([text.ids for text in batch])
        chosen = torch.zeros(ids.shape, dtype=torch.bool)
        for row, text in enumerate(batch):
            chosen[row, list(text.chosen)] = True
        listeners = _listening(model, found, chosen.to(device))
        try:
            model(
                ids.to(device),
                None if mask is None else mask.to(device),
                plan=Override.bypass(),
                logits_to_keep=1,
            )
        finally:
            for listener in listeners:
                listener.remove()
    return {place: torch.cat(parts) for place, parts in found.items()}


def _listening(
    model: MixtureModel, found: Mapping[str, list[Tensor]], chosen: Tensor
) -> list[RemovableHandle]:
    def hear(heard: list[Tensor], _: nn.Module, args: tuple[Reading]) -> None:
        heard.append(args[0].normal[chosen].float().cpu())

    return [
        router.register_forward_pre_hook(partial(hear, found[place]))
        for place, router in zip(found, model.routers, strict=True)
    ]


def _sources(base: BaseModel, bank: ExpertBank, batch: Sequence[_Text]) -> Iterator[dict[str, Any]]:
    for text in batch:
        for position in text.chosen:
            shown = text.ids[max(0, position + 1 - _EXCERPT) : position + 1]
            yield {
                "expert": bank.expert_names[text.expert],
                "position": position,
                "excerpt": base.tokenizer.decode(list(shown)),
            }
