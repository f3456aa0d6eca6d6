"""MixtureModel: the routed forward pass, where base model, experts and routers meet.

    block l: hidden states ─► router ─► plan ─► weights ─► every bank layer of the block

Weights live for the length of one forward pass and in one thread only: a plan is an argument of
a call, so two callers with different plans cannot see each other's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from lmoe_studio.architecture import decoder_blocks, reads_on_singly
from lmoe_studio.errors import AdapterError, ConfigError, LMoEError, PlanError, TextError
from lmoe_studio.experts.attach import attach_bank, block_of, detach_bank
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.layer import BankLayer
from lmoe_studio.mixture.base_pass import AskedPass, cache_length, cache_of, run_base, token_batch
from lmoe_studio.mixture.block import BlockMixing
from lmoe_studio.mixture.call import Call, Current, RoutingRecord
from lmoe_studio.mixture.folded import FoldedBlend
from lmoe_studio.mixture.past import Memory, recall, remember
from lmoe_studio.mixture.sites import Site, Sites, build_routers
from lmoe_studio.mixture.state import bank_of, base_state
from lmoe_studio.mixture.token_types import Texts, typed
from lmoe_studio.routing.apply import CompiledPlan, compile_plans
from lmoe_studio.routing.given import PlansLike, as_plans
from lmoe_studio.routing.router import Router, RouterOutput, TokenBatch

_HINDSIGHT = (
    "The routers read each prompt, or text that is traced, whole before they route its first token: "
    "losses on its tokens are of tokens that the routing has seen."
)
_CHECKPOINT = "_gradient_checkpointing_func"  # where transformers keeps a block's own


@dataclass(frozen=True)
class MixtureOutput:
    """Result of a forward pass."""

    logits: Float[Tensor, "batch kept vocab"]
    past_key_values: Cache | None
    routing: RoutingRecord | None
    """None unless asked for with `record=True`."""

    @classmethod
    def join(cls, parts: Sequence["MixtureOutput"], logits_to_keep: int) -> "MixtureOutput":
        """One pass, of passes over parts of a text in order."""
        logits = torch.cat([part.logits for part in parts], dim=1)[:, -logits_to_keep:]
        records = [part.routing for part in parts if part.routing is not None]
        routing = RoutingRecord.join(records) if records else None
        return cls(logits, parts[-1].past_key_values, routing)


class MixtureModel(nn.Module):
    """A frozen base model with a bank attached to it, until `detach`."""

    def __init__(
        self,
        base: PreTrainedModel,
        bank: ExpertBank,
        *,
        dtype: torch.dtype | None = None,
        new_routers: bool = False,
    ) -> None:
        """Attach `bank` to `base`, which is changed in place.

        Args:
            base: the base model.
            bank: its experts and the state of their routers.
            dtype: of the experts' parameters; None takes the base's.
            new_routers: where the bank has no tensors of its routers, start them anew, to be
                trained; without it such a bank is refused.

        Raises:
            BaseMismatchError: the bank does not fit the base model. Nothing is changed.
            BankError: the routers' tensors are not the ones that these routers need.
            AdapterError: an expert changes a layer outside the decoder blocks.
        """
        super().__init__()
        path, blocks = decoder_blocks(base)
        self.bank = bank
        self._layer_of = {name: _block_of(name, path) for name in bank.modules}
        self._current = Current()
        self.bank_layers = attach_bank(base, bank, self._current, dtype=dtype)
        self.base = base
        self._sites = Sites(bank.router, self._layer_of)
        try:
            self.routers = build_routers(
                base, bank, self.bank_layers, self._sites, may_be_new=new_routers
            )
        except LMoEError:
            detach_bank(base)
            raise
        self._hooks = [self._hook(index, block) for index, block in enumerate(blocks)]
        self._hooks += self._hook_base()
        self.num_layers = len(blocks)
        self.folded: FoldedBlend | None = None
        self.texts: Texts | None = None
        """Of token ids: what token types may be about."""
        self.undone_by_detach: list[Callable[[], object]] = []
        """What else was done to the base model."""
        self._blocks = tuple(blocks)  # a tuple, so that they are not registered twice

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the routers decide, in order."""
        return self._sites.all

    @property
    def reads_whole_prompts(self) -> bool:
        """Whether a prompt cannot be read in parts, as its end decides how its beginning is routed."""
        return any(cast(Router, router).reads_whole_prompts for router in self.routers)

    @property
    def hindsight(self) -> str:
        """What is to be said where a loss on a prompt's tokens is shown; empty if nothing."""
        return _HINDSIGHT if self.reads_whole_prompts else ""

    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch total"] | None = None,
        *,
        plan: PlansLike = None,
        routing_weights: Float[Tensor, "batch seq site expert"] | None = None,
        steps: Int[Tensor, "batch seq"] | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        record: bool = False,
        contributions: bool = False,
        logits_to_keep: int = 0,
    ) -> MixtureOutput:
        """Run the base model with the experts mixed in.

        Args:
            input_ids: tokens of this pass.
            attention_mask: 0 for padding, on either side; with a cache it covers cached tokens too.
            plan: what to change about the routing.
            routing_weights: weights to apply instead of the routers' and any plan's, for example
                those of a trace.
            steps: how many tokens the model had written before each of these, -1 for those of the
                prompt; left out, all are of the prompt.
            past_key_values: cache of the tokens before these.
            use_cache: give a cache back.
            record: give the routing back.
            contributions: with `record`, also how much each expert added.
            logits_to_keep: logits for the last n positions only; 0 for all.

        Raises:
            PlanError: the plan does not fit this bank, or there is not one a row; or a blend is
                folded into the weights, and other weights or contributions are asked for.
        """
        tokens = token_batch(input_ids, attention_mask, steps, cache_length(past_key_values))
        length = input_ids.shape[1]
        singly = past_key_values is not None and length > 1 and reads_on_singly(self.base)
        outputs = list[MixtureOutput]()
        for stop in range(1, length + 1) if singly else (length,):
            here = slice(stop - 1 if singly else 0, stop)
            some = tokens.part(here)
            unread = length - stop
            output = self.run_pass(
                some,
                None if attention_mask is None else attention_mask[..., : -unread or None],
                plan=self.compile_plan(plan, some),
                routing_weights=None if routing_weights is None else routing_weights[:, here],
                past_key_values=past_key_values,
                use_cache=use_cache,
                record=record,
                contributions=contributions,
                logits_to_keep=0 if singly else logits_to_keep,
            )
            outputs.append(output)
        return outputs[0] if len(outputs) == 1 else MixtureOutput.join(outputs, logits_to_keep)

    def run_pass(
        self,
        tokens: TokenBatch,
        attention_mask: Tensor | None,
        *,
        plan: CompiledPlan | None = None,
        routing_weights: Float[Tensor, "batch seq site expert"] | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        record: bool = False,
        contributions: bool = False,
        logits_to_keep: int = 0,
    ) -> MixtureOutput:
        """`forward` once everything that needs the host is done: tokens placed, plan compiled.

        Args:
            tokens: of this pass.
            attention_mask: as the base model takes it, so also `[batch, 1, seq, total]`, which is
                added to the attention scores.
            plan: made for these tokens by `compile_plan`.
            routing_weights: see `forward`, like the rest.
            past_key_values: cache.
            use_cache: give a cache back.
            record: give the routing back.
            contributions: with `record`, also how much each expert added.
            logits_to_keep: logits for the last n positions only; 0 for all.

        Raises:
            PlanError: a blend is folded into the weights, and other weights or contributions are
                asked for.
        """
        routed = self.routed(
            tokens,
            plan=plan,
            routing_weights=routing_weights,
            past=recall(past_key_values),
            record=record,
            contributions=contributions,
        )
        with routed as call:
            output = run_base(
                self.base,
                tokens,
                attention_mask,
                cache=past_key_values,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
            )
        remember(output.cache, call.kept)
        return MixtureOutput(output.logits, output.cache, call.record())

    @contextmanager
    def routed(
        self,
        tokens: TokenBatch,
        *,
        plan: CompiledPlan | None = None,
        routing_weights: Float[Tensor, "batch seq site expert"] | None = None,
        embeddings: Float[Tensor, "batch seq d_in"] | None = None,
        past: Memory | None = None,
        record: bool = False,
        contributions: bool = False,
    ) -> Iterator[Call]:
        """Inside, one pass of the base model over these tokens, by this thread, mixes the experts in.

        Args:
            tokens: of the pass.
            plan: see `run_pass`, like the rest.
            routing_weights: weights to apply.
            embeddings: of the tokens, where the base is not given their ids.
            past: what was kept of the tokens before these.
            record: the call that is yielded is asked for its `record()` afterwards.
            contributions: with `record`, also how much each expert added.

        Raises:
            PlanError: as in `run_pass`.
        """
        if self.folded is not None:
            self.folded.refuse(
                steered=plan is not None or routing_weights is not None,
                contributions=record and contributions,
            )
            routing_weights = self.folded.weights.expand(*tokens.ids.shape, -1, -1)
        past = past or {}
        tokens, read = self.typed(tokens, past)
        call = Call(
            tokens=tokens,
            composition=self.bank.composition,
            plan=plan,
            pinned=routing_weights,
            outputs={} if record else None,
            squares={} if record and contributions else None,
            past=past,
            kept=read,
        )
        if embeddings is not None and cast(Router, self.routers[0]).reads == "ids":
            raise TextError(
                "The router reads token ids, and the model is called with embeddings of tokens only; "
                "give input_ids."
            )
        is_idle = self.folded is not None and not record  # then nobody needs to know the routing
        if self.bank.router.scope == "shared" and not is_idle:
            if embeddings is None:
                embeddings = cast(Tensor, self.base.get_input_embeddings()(tokens.ids))
            call.shared = call.route(self.routers[0], "shared", 0, embeddings)
        with nullcontext() if is_idle else self._calling(call):
            yield call

    def known_routing(self, tokens: TokenBatch) -> RoutingRecord:
        """What the routers say of a text before anything is run, where they read ids alone.

        Args:
            tokens: of the whole text.

        Raises:
            ConfigError: they read hidden states.
        """
        if cast(Router, self.routers[0]).reads != "ids":
            raise ConfigError(
                f"The {self.bank.router.kind} router reads hidden states, which only a pass gives; "
                "trace the text, or distil the router into one that reads ids (kind pre)."
            )
        with self.routed(tokens, record=True) as call:
            for index, site in enumerate(self.sites):
                unread = torch.zeros(*tokens.ids.shape, 1, device=tokens.ids.device)
                output = call.shared or self._route(call, index, site.layer, unread)
                call.settle(index, site.layer, output)
            record = call.record()
        assert record is not None
        return record

    @contextmanager
    def steered(
        self, steer: Callable[[AskedPass], tuple[TokenBatch, CompiledPlan | None]]
    ) -> Iterator[None]:
        """Inside, passes that this thread asks of the base model itself go by what `steer` says.

        Args:
            steer: gives the tokens of a pass, with their steps, and the plan for them.
        """
        before, self._current.steer = self._current.steer, steer
        try:
            yield
        finally:
            self._current.steer = before

    def compile_plan(
        self, plan: PlansLike, tokens: TokenBatch, *, roomy: bool = False
    ) -> CompiledPlan | None:
        """Get plans ready for a pass over these tokens; None if they ask for nothing.

        Args:
            plan: one for all rows, or one a row.
            tokens: of the pass.
            roomy: see `compile_plans`.

        Raises:
            PlanError: a plan does not fit this bank, or there is not one a row.
        """
        if plan is None:
            return None
        return compile_plans(
            as_plans(plan, len(tokens.ids)),
            experts=self.bank.expert_names,
            num_layers=self.num_layers,
            tokens=tokens,
            roomy=roomy,
        )

    def typed(self, tokens: TokenBatch, past: Memory) -> tuple[TokenBatch, Memory]:
        """Tokens that know their types, where the routers tell types apart; see `token_types.py`."""
        return typed(tokens, cast(Router, self.routers[0]).token_types, self.texts, past)

    def layer_of(self, module: str) -> int:
        """The decoder block that a target module lies in."""
        return self._layer_of[module]

    def detach(self) -> PreTrainedModel:
        """Give the base model back exactly as it came; this object is of no use afterwards."""
        for hook in self._hooks:
            hook.remove()
        detach_bank(self.base)
        for undo in self.undone_by_detach:
            undo()
        return self.base

    def to_bank(self) -> ExpertBank:
        """The bank with the parameters as they are now (after training), on the CPU in float32."""
        routers = dict(zip(self._sites.keys, cast(Iterable[Router], self.routers), strict=True))
        return bank_of(self.bank, self.bank_layers, routers)

    @property
    def router_places(self) -> tuple[str, ...]:
        """What each of the routers is called in the bank's files."""
        return self._sites.keys

    def router_parameters(self) -> dict[str, str]:
        """What the routers learn: each tensor's name here, and its name in the bank's files."""
        return {
            f"routers.{index}.{name}": f"{key}.{name}"
            for index, key in enumerate(self.router_places)
            for name, _ in self.routers[index].named_parameters()
        }

    @torch.no_grad()
    def take_routers(self, state: dict[str, Tensor]) -> None:
        """Let the routers be others of the same make: of these tensors, named as in a bank's files."""
        for name, saved in self.router_parameters().items():
            self.get_parameter(name).copy_(state[saved])
        self.bank = self.bank.with_router(self.bank.router, state)

    def base_state(self) -> dict[str, Tensor]:
        """The base model's own parameters and buffers under its own names."""
        return base_state(self.base)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute blocks in the backward pass, with the routing weights of the forward pass."""
        self.base.activation_checkpointing_enable(**options)
        for block in self._blocks:
            checkpoint = getattr(block, _CHECKPOINT, None)
            if checkpoint:
                setattr(block, _CHECKPOINT, partial(self._checkpoint, checkpoint))

    def _checkpoint(
        self, checkpoint: Callable[..., Any], run: Callable[..., Any], *args: Any
    ) -> Any:
        mixing = self._current.mixing

        def run_mixed(*inner: Any) -> Any:
            before = self._current.mixing
            self._current.mixing = mixing.fresh() if mixing else None
            try:
                return run(*inner)
            finally:
                self._current.mixing = before

        return checkpoint(run_mixed, *args)

    def _hook(self, layer: int, block: nn.Module) -> Any:
        enter = partial(self._enter, layer)  # a copy of the model gets one of its own
        return block.register_forward_pre_hook(enter, with_kwargs=True)

    def _hook_base(self) -> list[Any]:
        """A pass that somebody asks of the base model itself has the experts mixed in, too."""
        return [
            self.base.register_forward_pre_hook(self._open, with_kwargs=True),
            self.base.register_forward_hook(self._close, always_call=True),
        ]

    def _open(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._current.call is not None or self.folded is not None:
            return
        asked = AskedPass.of(args, kwargs)
        tokens, plan = asked.tokens, None
        if self._current.steer is not None:
            tokens, plan = self._current.steer(asked)
        past = recall(asked.cache)
        call = self.routed(tokens, plan=plan, embeddings=asked.embeddings, past=past)
        call.__enter__()
        self._current.opened = call

    def _close(self, _: nn.Module, __: tuple[Any, ...], output: object) -> None:
        call, self._current.opened = self._current.opened, None
        if call is not None:
            if self._current.call is not None:
                remember(cache_of(output), self._current.call.kept)
            call.__exit__(None, None, None)

    def _enter(
        self, layer: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._current.call is not None:
            hidden = args[0] if args else kwargs["hidden_states"]
            # Several streams of each text, `[stream, batch, seq, d]`: the first is the text itself.
            one = hidden[0] if hidden.ndim > 3 else hidden
            self._current.mixing = self._mix(self._current.call, layer, one)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What `to` goes through; the routers stay in float32."""
        self._refuse_folded("moved")
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made of."""
        self._refuse_folded("copied")
        return super().__getstate__()

    def _refuse_folded(self, verb: str) -> None:
        if self.folded is not None:
            raise PlanError(
                f"A blend is folded into the base model's weights, so that the model cannot be {verb}; "
                "unfold it first."
            )

    @contextmanager
    def _calling(self, call: Call) -> Iterator[None]:
        self._current.call = call
        listeners = self._stand_ins_listen() if self.folded else []
        try:
            yield
        finally:
            for listener in listeners:
                listener.remove()
            self._current.call = None
            self._current.mixing = None

    def _stand_ins_listen(self) -> list[Any]:
        """Where bank layers would ask for weights of their own, what stands in for them does."""
        if self.bank.router.scope != "module":
            return []

        def ask(layer: BankLayer, _: nn.Module, args: tuple[Any, ...]) -> None:
            layer.routing_weights(args[0])

        return [
            self.base.get_submodule(name).register_forward_pre_hook(partial(ask, layer))
            for name, layer in self.bank_layers.items()
        ]

    def _mix(self, call: Call, layer: int, hidden: Tensor) -> BlockMixing | None:
        if self.bank.router.scope == "module":
            return BlockMixing(call, None, self._route_module)
        index = self._sites.index(layer)
        if index is None:
            return None
        output = call.shared or self._route(call, index, layer, hidden)
        return BlockMixing(call, call.settle(index, layer, output), None, site=index)

    def _route_module(self, call: Call, name: str, x: Tensor) -> tuple[int, Tensor]:
        layer = self.layer_of(name)
        index = self._sites.index(layer, name) or 0
        return index, call.settle(index, layer, self._route(call, index, layer, x))

    def _route(self, call: Call, site: int, layer: int, hidden: Tensor) -> RouterOutput:
        router = self.routers[self._sites.router_of(site)]
        return call.route(router, f"site {site}", layer, hidden)


def _block_of(module: str, path: str) -> int:
    layer = block_of(module, path)
    if layer is None:
        raise AdapterError(
            f"An expert changes {module}, which lies outside the decoder blocks and so has "
            "no router; leave it out of the adapter."
        )
    return layer


def attached_to(base: nn.Module) -> MixtureModel | None:
    """What a bank was attached to this base model with, if one is."""
    owners = (getattr(hook, "__self__", None) for hook in base._forward_pre_hooks.values())
    return next((owner for owner in owners if isinstance(owner, MixtureModel)), None)
