"""Steering: a plan in force over passes whose caller knows nothing of plans."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.errors import PlanError
from lmoe_studio.mixture.base_pass import AskedPass
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.apply import CompiledPlan
from lmoe_studio.routing.check import check_plan
from lmoe_studio.routing.given import PlansLike, as_plans
from lmoe_studio.routing.plan import RoutingPlan
from lmoe_studio.routing.router import TokenBatch
from lmoe_studio.routing.settle import PlanRow, needs_text
from lmoe_studio.tracing.token_texts import TokenTexts


class Steering:
    """Says before each pass of a model which steps its tokens are and what changes their routing."""

    def __init__(
        self,
        mixture: MixtureModel,
        plan: PlansLike,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        """Take a plan for texts that are read and not written; `writing` says that they go on.

        Args:
            mixture: the model.
            plan: one for all rows, or one a row.
            tokenizer: for scopes by text.
        """
        self._mixture = mixture
        self._plan = plan
        self._texts = TokenTexts(tokenizer) if tokenizer is not None else None
        self._each = 1
        self._prompt_length: int | None = None
        self._known: list[list[int]] = []

    def writing(self, prompts: int, length: int, each: int, *, is_reordered: bool) -> None:
        """What follows are passes over some prompts, and then over what is written after them.

        Args:
            prompts: how many.
            length: columns of them, padding counted; later ones are written.
            each: rows of each in a batch.
            is_reordered: rows change places between passes, as beams do.

        Raises:
            PlanError: a plan does not fit the bank, there is not one a prompt, or it has a scope by
                text that cannot be settled.
        """
        self._prompt_length, self._each = length, each
        plans = self.check(prompts * each)
        if is_reordered and any(needs_text(plan) for plan in plans):
            raise PlanError(
                "The plan has a scope by text, and beam search lets texts change places while they "
                "are written; write without beams, or choose tokens by position or step."
            )

    def check(self, rows: int) -> list[RoutingPlan | None]:
        """The plan of each row. Raises PlanError, as `writing` does."""
        plans = as_plans(self._plan, rows, each=self._each)
        experts, num_layers = self._mixture.bank.expert_names, self._mixture.num_layers
        for plan in plans:
            if plan is not None:
                check_plan(plan, experts=experts, num_layers=num_layers)
        if self._texts is None and any(needs_text(plan) for plan in plans):
            raise PlanError(
                "The plan has a scope by text, and the model has no tokenizer to read its tokens with; "
                "give one as tokenizer=…, or choose tokens by position or step."
            )
        return plans

    def __call__(self, asked: AskedPass) -> tuple[TokenBatch, CompiledPlan | None]:
        """The tokens of a pass with their steps, and the plan for them.

        Raises:
            PlanError: as for `writing`; or the pass goes on after tokens that were never seen here.
        """
        tokens, plans = asked.tokens, self.check(len(asked.tokens.ids))
        if self._prompt_length is not None:
            columns = asked.past + torch.arange(tokens.ids.shape[1], device=tokens.ids.device)
            steps = (columns - self._prompt_length).clamp_min(-1).expand_as(tokens.ids)
            tokens = replace(tokens, steps=steps)
        if any(needs_text(plan) for plan in plans):
            plans = self._settled(plans, tokens, asked.past)
        return tokens, self._mixture.compile_plan(plans, tokens)

    def _settled(
        self, plans: Sequence[RoutingPlan | None], tokens: TokenBatch, past: int
    ) -> list[RoutingPlan | None]:
        """Text scopes as positions, for texts whose ids are kept as they come."""
        if not past:
            self._known = [[] for _ in plans]
        settled = []
        rows = zip(tokens.ids, tokens.positions, tokens.is_token, tokens.steps, strict=True)
        for index, (ids, positions, is_token, steps) in enumerate(rows):
            new = ids[is_token].tolist()
            first = int(positions[is_token][0]) if new else 0
            known = self._known[index][:first] if index < len(self._known) else []
            if first > len(known):
                raise PlanError(
                    "The plan has a scope by text, and the pass goes on after tokens that were read "
                    "before the plan came; read the text from its beginning."
                )
            self._known[index] = [*known, *new]
            written = int(steps[-1]) + 1
            settled.append(self._row_plan(plans[index], self._known[index], written))
        return settled

    def _row_plan(
        self, plan: RoutingPlan | None, ids: list[int], written: int
    ) -> RoutingPlan | None:
        assert self._texts is not None, "`check` asks for it"
        prompt, rest = ids[: len(ids) - written], ids[len(ids) - written :]
        row = PlanRow(self._texts.parts(prompt))
        return row.for_continuation(plan, self._texts.parts(rest, after=prompt[-1:]))
