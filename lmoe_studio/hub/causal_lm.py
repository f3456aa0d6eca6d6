"""LMoEForCausalLM: a bank over its base as a model of transformers, for code that knows no banks.

    model = lmoe.LMoEForCausalLM.from_pretrained("demo")
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=model.tokenizer)

The base model itself does everything; it is hooked so that each of its passes mixes the experts in
(`MixtureModel`), and this class only says which plan is in force.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import (
    Cache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.generic import ModelOutput

from lmoe_studio.base_models import identify, load_model, load_tokenizer
from lmoe_studio.errors import ConfigError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.files import load_bank, write_bank_into
from lmoe_studio.hub.checkpoint import without_frozen, write_learned
from lmoe_studio.hub.repository import push_bank
from lmoe_studio.hub.steering import Steering
from lmoe_studio.mixture.model import MixtureModel, attached_to
from lmoe_studio.routing.given import PlansLike
from lmoe_studio.tracing.token_texts import TokenTexts

# Pipelines look here whether they know a class, and else say at length that they do not.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["lmoe"] = "LMoEForCausalLM"

_OF_CLASSES = ("_no_split_modules", "_is_stateful", "_skip_keys_device_placement")


class LMoEForCausalLM(PreTrainedModel, GenerationMixin):
    """A frozen base model with a bank of experts and their routers, which can be trained.

    `forward` takes and gives what the base model's does; its config is the base model's.
    """

    config_class = PreTrainedConfig
    base_model_prefix = "base"
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(
        self,
        base: PreTrainedModel,
        bank: ExpertBank,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Attach a bank to a loaded base model, which is changed in place until `detach`.

        Args:
            base: the model; its own parameters no longer ask for gradients.
            bank: made for it.
            tokenizer: for plans and token types with scopes by text.
            dtype: of the experts; None takes the base's.

        Raises:
            BaseMismatchError: the bank was made for a base of another architecture.
            BankError, AdapterError, BaseModelError: as for `MixtureModel`.
        """
        super().__init__(base.config)
        self.tokenizer = tokenizer
        learned = [one for one in base.parameters() if one.requires_grad]
        if attached_to(base) is None:  # else MixtureModel says so
            bank.require_base(identify(base, base.name_or_path or ""))
        self.mixture = MixtureModel(base, bank, dtype=dtype)
        if tokenizer is not None:
            self.mixture.texts = TokenTexts(tokenizer).parts
        _learn(learned, False)
        self.mixture.undone_by_detach.append(partial(_learn, learned, True))
        self.generation_config = base.generation_config or GenerationConfig()
        for name in _OF_CLASSES:
            setattr(self, name, getattr(base, name, None))
        if hasattr(base, "hf_device_map"):
            self.hf_device_map = base.hf_device_map
        self.train(base.training)

    @classmethod
    def from_pretrained(
        cls,
        bank: str | Path | ExpertBank,
        *,
        base_model: str | PreTrainedModel | None = None,
        revision: str | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **options: Any,
    ) -> Self:
        """Load a bank and its base model, in evaluation mode.

        Args:
            bank: name of a shipped or an own bank, a bank folder, or the id of one on the hub.
            base_model: another place of the base model, or the loaded model itself, to be changed
                in place; None takes the one that the bank names.
            revision: of the bank, where it comes from the hub.
            tokenizer: the base's; None loads it unless the model came loaded.
            options: of the base model's `from_pretrained`: `dtype`, `device_map`,
                `attn_implementation`, `quantization_config`, `token` and so on.

        Raises:
            BankError: there is no such bank, or it is damaged.
            BaseModelError: the base model cannot be had.
            BaseMismatchError: the bank was made for another base model.
            ConfigError: options came for a model that is loaded already.
        """
        if not isinstance(bank, ExpertBank):
            bank = load_bank(bank, revision=revision)
        if isinstance(base_model, PreTrainedModel):
            if options:
                raise ConfigError(
                    f"base_model is a loaded model, for which {', '.join(options)} comes too late; "
                    "give it where the model is loaded."
                )
            return cls(base_model, bank, tokenizer=tokenizer).eval()
        base = base_model or bank.base.id
        model = load_model(base, **options)
        return cls(model, bank, tokenizer=tokenizer or load_tokenizer(base)).eval()

    @property
    def base(self) -> Any:
        """The base model, a `PreTrainedModel`, whose passes mix the experts in."""
        return self.mixture.base

    @property
    def bank(self) -> ExpertBank:
        """The bank with its parameters as they are now, on the CPU in float32."""
        return self.mixture.to_bank()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        plan: PlansLike = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """The base model's `forward` with the experts mixed in.

        Args:
            input_ids: `[batch, seq]`; the rest as the base model takes it.
            attention_mask: 0 for padding.
            position_ids: places.
            past_key_values: cache.
            inputs_embeds: instead of ids.
            labels: for a loss over the tokens, as in any causal language model.
            use_cache: give a cache back.
            logits_to_keep: logits of the last n positions only; 0 for all.
            plan: what to change about the routing, one for all rows or one a row; None leaves it
                to `steered`, if one is open.
            kwargs: further arguments of the base model.

        Returns:
            What the base model returns.

        Raises:
            PlanError: the plan does not fit this bank or batch.
        """
        given = {
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
            "labels": labels,
            "use_cache": use_cache,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if not isinstance(logits_to_keep, int) or logits_to_keep:
            given["logits_to_keep"] = logits_to_keep
        with nullcontext() if plan is None else self.steered(plan):
            return self.base(input_ids=input_ids, **given, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *args: Any,
        plan: PlansLike = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base model's `generate` with the experts mixed in.

        Args:
            inputs: ids of the prompts, padded on the left; also as `input_ids`.
            args: further arguments of transformers' `generate`.
            plan: what to change about the routing, one for all prompts or one a prompt; scopes by
                step count the tokens as they are written.
            tokenizer: for scopes by text and stop strings; None takes the model's own.
            kwargs: likewise.

        Raises:
            PlanError: the plan does not fit this bank or these prompts, or has a scope by text that
                cannot be settled.
        """
        tokenizer = tokenizer or self.tokenizer
        if tokenizer is not None:
            kwargs["tokenizer"] = tokenizer
        if plan is None:
            return self.base.generate(inputs, *args, **kwargs)
        beams, each = (_option(self.base, args, kwargs, name) for name in _ROWS)
        steering = Steering(self.mixture, plan, tokenizer=tokenizer)
        prompts = next(
            (x for x in (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if x is not None),
            None,
        )  # fmt: skip
        rows, length = (1, 1) if prompts is None else prompts.shape[:2]
        steering.writing(rows, length, max(beams, each), is_reordered=beams > 1)
        with self.mixture.steered(steering):
            return self.base.generate(inputs, *args, **kwargs)

    @contextmanager
    def steered(
        self, plan: PlansLike, *, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Iterator[None]:
        """Inside, whatever this thread runs of the model goes by a plan, all of it as a prompt.

            with model.steered(lmoe.Override.solo("sql")):
                lm_eval.simple_evaluate(HFLM(pretrained=model, tokenizer=tokenizer), tasks=["gsm8k"])

        Raises:
            PlanError: when the model runs, and the plan does not fit.
        """
        steering = Steering(self.mixture, plan, tokenizer=tokenizer or self.tokenizer)
        with self.mixture.steered(steering):
            yield

    def detach(self) -> PreTrainedModel:
        """Give the base model back exactly as it came; this object is of no use afterwards."""
        return self.mixture.detach()

    def save_pretrained(
        self,
        save_directory: str | Path,
        *args: Any,  # noqa: ARG002  (transformers': they say how base weights are written)
        push_to_hub: bool = False,
        repo_id: str | None = None,
        token: str | bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the bank, without the base model, into a folder; other files there stay.

        Args:
            save_directory: the folder; made where it is not.
            args: not used.
            push_to_hub: also put it on the hub.
            repo_id: there; None takes the folder's name.
            token: of the hub.
            kwargs: not used, but for transformers' Trainer, which is known by its `state_dict`: it also
                gets the file that it resumes from.

        Raises:
            StorageError: it cannot be written.
            HubError: it could not be put on the hub.
        """
        bank = self.bank
        write_bank_into(bank, Path(save_directory))
        if "state_dict" in kwargs:
            write_learned(self, Path(save_directory))
        if push_to_hub:
            push_bank(bank, repo_id or Path(save_directory).name, token=token)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """As of any module; without `strict`, the frozen parameters and buffers may be missing."""
        return without_frozen(self, super().load_state_dict(*args, **options))

    def push_to_hub(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, repo_id: str, **options: Any
    ) -> str:
        """Put the bank, without the base model, on the hub; the answer is its address.

        Args:
            repo_id: user/name.
            options: `private`, `commit_message`, `create_pr`, `revision`, `token`.

        Raises:
            HubError: it could not be put there.
        """
        return push_bank(self.bank, repo_id, **options)

    def get_input_embeddings(self) -> nn.Module:
        return self.base.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        return self.base.get_output_embeddings()

    def activation_checkpointing_enable(self, *args: Any, **options: Any) -> None:
        """Recompute blocks in the backward pass."""
        self.mixture.activation_checkpointing_enable(*args, **options)

    def gradient_checkpointing_enable(self, *args: Any, **options: Any) -> None:
        """The same, by its older name."""
        self.activation_checkpointing_enable(*args, **options)

    def enable_input_require_grads(self) -> None:
        """Let gradients flow through a frozen base under checkpoints."""
        self.base.enable_input_require_grads()

    def disable_input_require_grads(self) -> None:
        self.base.disable_input_require_grads()

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        return self.base.prepare_inputs_for_generation(*args, **kwargs)

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        """As for attention: whether it can be had was settled when the base was made."""
        return True

    def _supports_default_dynamic_cache(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.base._supports_default_dynamic_cache()


def _learn(parameters: list[nn.Parameter], should: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(should)


_ROWS = ("num_beams", "num_return_sequences")


def _option(base: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> int:
    """How `generate` settles an option: an argument, then a given config, then the model's own."""
    given = kwargs.get(name)
    if given is None:
        config = next((one for one in args if isinstance(one, GenerationConfig)), None)
        config = config or kwargs.get("generation_config") or base.generation_config
        given = getattr(config, name, None)
    return int(given or 1)
