"""Studio: holds a loaded L-MoE; the verbs that the interface, the command line and notebooks share."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any, Self

import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from lmoe_studio.arguments import one_text, whole_number
from lmoe_studio.base_models import (
    BaseModel,
    Progress,
    choose_device,
    choose_dtype,
    identify,
    load_base,
    over_same_weights,
    silent,
)
from lmoe_studio.cards import BankCard, bank_card
from lmoe_studio.causal.evaluation import CorpusEvaluator, CorpusLosses
from lmoe_studio.config import Quantize
from lmoe_studio.errors import (
    ConfigError,
    DataError,
    PlanError,
    TextError,
    kind_of,
)
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.files import load_bank
from lmoe_studio.experts.geometry import BankGeometry, bank_geometry
from lmoe_studio.experts.places import own_banks, shipped_banks
from lmoe_studio.generation.author import Author, StopSignal
from lmoe_studio.generation.comparison import Comparison
from lmoe_studio.generation.past import Prompt
from lmoe_studio.generation.text import Generation, Piece, generate_texts
from lmoe_studio.generation.turns import SteadyTurns, Turns
from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.merging import MergeResult, merge_and_check
from lmoe_studio.mixture.folding import folded
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.quantisation import is_as_asked
from lmoe_studio.routing.check import plan_notes
from lmoe_studio.routing.given import PlanLike, PlanSource, as_blend, as_plan, named_plans
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.composition import composition_gap
from lmoe_studio.tracing.corpus import CorpusOptions, CorpusProgress, CorpusTracer
from lmoe_studio.tracing.corpus_files import LabelledText
from lmoe_studio.tracing.corpus_parts import CorpusRun, require_runs_only
from lmoe_studio.tracing.corpus_sources import CorpusLike, opened_corpus
from lmoe_studio.tracing.preview import preview_weights, refuse_foreign
from lmoe_studio.tracing.prompt import record_prompt
from lmoe_studio.tracing.recorder import settle_prompt
from lmoe_studio.tracing.records import FloatArray, RoutingTrace
from lmoe_studio.tracing.routes import known_routes
from lmoe_studio.tracing.text_blend import text_blend
from lmoe_studio.tracing.token_ids import TokenIds
from lmoe_studio.tracing.token_texts import TokenTexts
from lmoe_studio.training.adapt import Adapted, AdaptStep, adapt
from lmoe_studio.training.distil import Distilled, distil
from lmoe_studio.training.memory import build_memory

_FOLDED = "A blend is folded into the base model's weights; unfold it first."
_UNFINISHED = (
    "A text is being written, or a corpus read; {} between calls only: wait for their end, or close "
    "the stream."
)


class Studio:
    """A base model with a bank attached, ready to be traced and steered."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        bank: ExpertBank | str | Path,
        *,
        base_id: str | None = None,
    ) -> None:
        """Attach a bank over a loaded model, which is left as it is: others may use it too.

        Args:
            model: a causal language model of transformers, in evaluation mode.
            tokenizer: its own.
            bank: the bank, or its name, folder or id on the hub.
            base_id: how the model is called; None takes its own name, else the bank's for it.

        Raises:
            BaseMismatchError: the bank was made for a base of another architecture.
            BankError: there is no such bank, or it is damaged.
            BaseModelError: the tokenizer has tokens that the model does not know.
        """
        if not isinstance(bank, ExpertBank):
            bank = load_bank(bank)
        identity = identify(model, base_id or model.name_or_path or bank.base.id)
        base = BaseModel(model, tokenizer, identity)
        bank.require_base(base.identity)
        self.base = base
        self.bank = bank
        self._loaded_routers = bank.router_state
        self.tokenizer = base.tokenizer
        self._texts = TokenTexts(base.tokenizer)
        self.context_length = base.context_length
        self._ids = TokenIds(base.tokenizer, base.context_length)
        self.model = MixtureModel(over_same_weights(base.model), bank).eval()
        self.model.texts = self._texts.parts
        self._one_at_a_time = Turns()
        self._author = Author(
            self.model,
            base.tokenizer,
            self._texts,
            self._ids,
            context_length=base.context_length,
            turns=self._one_at_a_time,
        )

    @classmethod
    def load(
        cls,
        bank: str | Path = "demo",
        *,
        base: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        quantize: Quantize | None = None,
        beside: Self | None = None,
        on_progress: Progress = silent,
    ) -> Self:
        """Load a bank and the base model it belongs to.

        Args:
            bank: name of a shipped or an own bank, a bank folder, or the id of one on the hub.
            base: load this base instead of the one the bank names, for example a local copy.
            device: "auto" takes CUDA, then MPS, then the CPU.
            dtype: "auto" takes bfloat16 on a GPU and float32 on a CPU.
            quantize: keep the base's linear layers in 4 or 8 bits ("4bit", "8bit"); needs bitsandbytes.
            beside: a studio whose base model is used once more, in the same memory, if it is the one
                that is wanted; both may then work at once.
            on_progress: hears each slow step.

        Raises:
            BankError: there is no such bank, it is damaged, or made for another base.
            BaseModelError: the base model cannot be had, or cannot be quantised.
        """
        on_progress(f"Reading bank {bank}")
        loaded = load_bank(bank)
        wanted = base or loaded.base.id
        model = beside and _same_base(beside.base, wanted, device, dtype, quantize)
        if model is None:
            model = load_base(
                wanted, device=device, dtype=dtype, quantize=quantize, on_progress=on_progress
            )
        on_progress("Attaching the experts")
        return cls(model.model, model.tokenizer, loaded, base_id=model.identity.id)

    def trace(
        self,
        text: str,
        *,
        plan: PlanLike | None = None,
        max_tokens: int | None = None,
        alternatives: int = 5,
        contributions: bool = False,
        on_progress: Callable[[int, int], None] = lambda *_: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> RoutingTrace:
        """Read a text, and what every router did.

        Args:
            text: read as it is, without a chat template.
            plan: what to change about the routing.
            max_tokens: cut the text to its first tokens; None refuses one that is too long.
            alternatives: how many of the likeliest tokens to note for each position.
            contributions: also note how much each expert added.
            on_progress: hears how many tokens are read, and of how many, as a long text goes on.
            should_stop: asked now and then; the answer is then the trace of what was read so far,
                which is the beginning of the whole text's.

        Raises:
            TextError: the text is blank.
            ContextLengthError: it has more tokens than the model can read.
            PlanError: the plan does not fit this bank, or another thread has folded a blend.
            ConfigError: `max_tokens` or `alternatives` is out of range.
        """
        ids = self._read(text, max_tokens)
        settled = self._author.checked(plan, length=len(ids))
        return record_prompt(
            self.model,
            self._texts,
            ids,
            plan=settled,
            alternatives=self._author.check_alternatives(alternatives),
            contributions=contributions,
            turn=SteadyTurns(self._one_at_a_time, lambda: self.model.folded, from_first_turn=True),
            on_progress=on_progress,
            should_stop=should_stop,
        )

    def preview(self, trace: RoutingTrace, plan: PlanLike) -> FloatArray:
        """The weights that a plan would make of what the routers said in a trace; nothing is run.

            studio.preview(studio.trace(text), plan).mean(axis=0)  # by layer and expert

        Where the trace was made under this very plan, these are the weights that ran. In a run under
        another one later layers see other hidden states, and the text may go on otherwise.

        Args:
            trace: made with this bank, of a text that was read or written.
            plan: takes the place of the plan that the trace was made under, if any.

        Returns:
            `[position, site, expert]`, like the trace's `routing_weights`.

        Raises:
            BankMismatchError: another bank or router made the trace.
            PlanError: the plan does not fit this bank.
        """
        refuse_foreign(trace, self.model)
        return preview_weights(
            trace,
            self._author.checked(plan) or RoutingPlan(),
            router=self.bank.router,
            num_layers=self.model.num_layers,
            texts=self._texts,
        )

    def trace_corpus(
        self,
        corpus: CorpusLike,
        *,
        out: Path | str,
        labels: Iterable[object] | None = None,
        text_column: str = "text",
        label_column: str | None = None,
        run: str | None = None,
        plan: PlanLike | None = None,
        max_tokens: int | None = None,
        contributions: bool = False,
        scores: bool = False,
        on_progress: Callable[[CorpusProgress], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> CorpusRun:
        """Trace many texts in batches, into a folder of Parquet parts.

            run = studio.trace_corpus("texts.jsonl", label_column="skill", out="runs/x")
            specialisation(run.frame())        # or pandas.read_parquet("runs/x")

        A run that was stopped or failed goes on where it was when the same call is made again.
        Memory does not grow with the number of texts.

        Args:
            corpus: a .jsonl, .csv, .parquet or .txt file (a text a line), or the texts themselves:
                a list, a column of a data frame, an array, a generator. Missing ones are passed over.
                Or a dataset: a folder of `save_to_disk`, `hf:user/name,split=test,take=500`, or an
                object of the library `datasets`.
            out: folder for this run and others that are to be read together.
            labels: a label for each text, where the texts are given; None or NaN for one without.
            text_column: column of the file or dataset that holds the texts; where there is no `text`,
                pairs and conversations are found by their usual columns (docs/training.md).
            label_column: column that holds their labels; None reads none.
            run: name of the run, to keep several in one folder; made up unless given.
            plan: what to change about the routing, in every text.
            max_tokens: cut longer texts to this; to what the model can read they are cut anyway.
            contributions: also keep how much each expert added.
            scores: also keep the routers' logits, probabilities and, under a plan, own weights.
            on_progress: hears after each batch how far the run is.
            should_stop: asked before each batch; a run that is stopped keeps its finished parts.

        Raises:
            HubError: a dataset of the hub cannot be had.
            DataError: the corpus cannot be read, or holds no text.
            ConfigError: the folder holds a run of another corpus, bank or options.
            StorageError: a part cannot be written.
            OverflowedError: the model's numbers are not finite in one of the texts.
            PlanError: the plan does not fit this bank.
        """
        asked, most = self._author.checked(plan), _most_tokens(max_tokens)
        require_runs_only(Path(out))
        tracer = CorpusTracer(
            self.model, self._texts, self._encode_cut, self.context_length, self._one_at_a_time
        )
        with (
            opened_corpus(
                corpus, labels=labels, text_column=text_column, label_column=label_column,
                keep_in=Path(out) / "_data",
            ) as texts,
            self._live_experts(),
        ):  # fmt: skip
            return tracer.run(
                texts,
                Path(out),
                CorpusOptions(asked, most, contributions, scores),
                run=run,
                on_progress=on_progress,
                should_stop=should_stop,
            )

    def evaluate(
        self,
        corpus: CorpusLike,
        *,
        labels: Iterable[object] | None = None,
        text_column: str = "text",
        label_column: str | None = None,
        plans: Mapping[str, PlanLike] | None = None,
        max_tokens: int | None = None,
        on_progress: Callable[[CorpusProgress], None] = lambda _: None,
    ) -> CorpusLosses:
        """What texts cost, in nats a token by label: is the router worth its while, and where?

            studio.evaluate("texts.jsonl", label_column="skill").table()

        Compared are the router, uniform weights, the base model, each expert alone, and the best of
        those for each text and for each token in hindsight. (A token's loss under one expert comes
        after a context that this expert read too; the last row is a mark, not a promise.)

        Args:
            corpus: a .jsonl, .csv, .parquet or .txt file (a text a line), or the texts themselves:
                a list, a column of a data frame, an array, a generator. Missing ones are passed over.
                Or a dataset: a folder of `save_to_disk`, `hf:user/name,split=test,take=500`, or an
                object of the library `datasets`.
            labels: a label for each text, where the texts are given; None or NaN for one without.
            text_column: column of the file or dataset that holds the texts; where there is no `text`,
                pairs and conversations are found by their usual columns (docs/training.md).
            label_column: column that holds their labels; None reads none.
            plans: further plans to compare, by name.
            max_tokens: cut longer texts to this; to what the model can read they are cut anyway.
            on_progress: hears after each batch how far it is.

        Raises:
            HubError: a dataset of the hub cannot be had.
            DataError: the corpus cannot be read, or holds nothing to foretell.
            PlanError: a plan does not fit this bank.
            ConfigError: a plan has the name of one that is compared anyway.
            OverflowedError: the model's scores are not finite in one of the texts.
        """
        named, most = named_plans(plans or {}), _most_tokens(max_tokens)
        for plan in named.values():
            self._author.checked(plan)
        evaluator = CorpusEvaluator(
            self.model, self._texts, self._encode_cut, self.context_length, self._one_at_a_time
        )
        with (
            opened_corpus(
                corpus, labels=labels, text_column=text_column, label_column=label_column
            ) as texts,
            self._live_experts(),
        ):
            return evaluator.run(texts, plans=named, max_tokens=most, on_progress=on_progress)

    @property
    def jobs(self) -> Jobs:
        """Training in the background; `Jobs()` is the same, and needs no bank to be loaded."""
        return Jobs()

    def bank_geometry(self) -> BankGeometry:
        """How large the experts' updates are and how alike, module by module."""
        return bank_geometry(self.bank)

    def composition_gap(self, text: str, *, plan: PlanLike | None = None) -> pd.DataFrame:
        """How far the compositions `factor` and `output` differ on a text: the cross terms.

        Returns:
            One row for each target linear: layer, module, output (norm of the update Σ w s B A x
            over all positions), factor (that of (Σ w s B)(Σ w A) x), gap (norm of the difference
            over that of `output`; 0 where one expert has all the weight).

        Raises:
            AdapterError: the experts have different ranks, so that `factor` does not exist.
            TextError, ContextLengthError, PlanError: as in `trace`.
        """
        ids = self._read(text, None)
        asked = self._author.checked(plan, length=len(ids))
        with self._live_experts(), self._one_at_a_time:
            return composition_gap(
                self.model, ids, plan=asked and settle_prompt(asked, self._texts, ids)
            )

    def generate(
        self,
        prompt: Prompt,
        *,
        plan: PlanSource = None,
        should_stop: StopSignal = None,
        **options: Any,
    ) -> Generation:
        """Write a text after a prompt, or go on with one.

            part = studio.generate("Count the users.", should_stop=event)
            whole = studio.generate(part)  # with the same options: as if it had never stopped

        Args:
            prompt: raw text, or with `chat=True` what the user says; or a `Generation` or a
                `RoutingTrace`, and the text goes on after it: its tokens and their routing stay
                what they are, steps and the draws of its seed count on, and `max_new_tokens` are
                added to it.
            plan: what to change about the routing; a callable is asked before every step.
            should_stop: ends the writing within one token.
            options: those of `GenerationOptions`, such as `max_new_tokens=64`, `temperature`,
                `seed`, `stop`, `chat`, `trace`.

        Raises:
            TextError: the prompt is blank, or the model has no chat template; or the text to go on
                after is empty, has no trace, or has ended.
            BankMismatchError: another bank or router made the text to go on after.
            ContextLengthError: prompt and new tokens are more than the model can read.
            PlanError: the plan does not fit this bank or this run.
            ConfigError: an option is unknown or out of range.
        """
        pieces = self._author.write(prompt, [plan], should_stop, options)
        return generate_texts(pieces, 1)[0]

    def stream(
        self,
        prompt: Prompt,
        *,
        plan: PlanSource = None,
        should_stop: StopSignal = None,
        **options: Any,
    ) -> Iterator[Piece]:
        """The same, a piece for each token as it comes; nothing runs until the next is asked for.

        Arguments and mistakes are those of `generate`, and mistakes are raised at once.
        """
        pieces = self._author.write(prompt, [plan], should_stop, options)
        return (piece for [piece] in pieces if piece is not None)

    def compare(
        self,
        prompt: Prompt,
        plans: Mapping[str, PlanLike | None],
        *,
        base: bool = True,
        reference: str | None = None,
        should_stop: StopSignal = None,
        **options: Any,
    ) -> Comparison:
        """Write after the same prompt, with the same seed, under several plans, as one batch.

        Args:
            prompt: as for `generate`.
            plans: by name; None is the router alone.
            base: also run the base model, without experts, under the name "base".
            reference: a text whose log-probability after the prompt is wanted under each plan.
            should_stop: ends all of them within one token.
            options: those of `generate`.

        Raises:
            TextError, ContextLengthError, PlanError, ConfigError: as for `generate`.
        """
        return self._author.compare(
            prompt,
            plans,
            base=base,
            reference=reference,
            should_stop=should_stop,
            options=options,
        )

    def sweep(
        self,
        prompt: Prompt,
        expert: str,
        *,
        strengths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        plan: PlanLike | None = None,
        layers: Any = None,
        tokens: Any = "all",
        **options: Any,
    ) -> Comparison:
        """Compare growing strengths of one expert, the base model first.

        Args:
            prompt: as for `generate`.
            expert: which.
            strengths: how far from the routing as it is (0) to this expert alone (1).
            plan: what holds besides, in front.
            layers: where the expert grows, as for an override.
            tokens: likewise.
            options: those of `compare`.
        """
        before = as_plan(plan) or RoutingPlan()
        if not isinstance(strengths, Iterable) or isinstance(strengths, str):
            raise ConfigError(f"strengths is {kind_of(strengths)}; expected numbers from 0 to 1.")
        plans = {}
        for strength in strengths:
            more = Override.solo(expert, strength=strength, layers=layers, tokens=tokens)
            plans[f"{expert} {more.strength:g}"] = RoutingPlan([*before.overrides, more])
        return self.compare(prompt, plans, **options)

    def check_plan(
        self, plan: PlanLike | None, *, max_new_tokens: int | None = None
    ) -> tuple[str, ...]:
        """What a person should know about a plan. Raises PlanError if it does not fit this bank.

        Args:
            plan: which.
            max_new_tokens: how many tokens the run that it is for may write; None if not known.
        """
        asked = self._author.checked(plan, new_tokens=max_new_tokens) or RoutingPlan()
        return tuple(plan_notes(asked, experts=self.bank.expert_names, new_tokens=max_new_tokens))

    def merge(
        self,
        blend: Mapping[str, float] | PlanLike,
        out: Path | str,
        *,
        rank: int | None = None,
        full: bool = False,
    ) -> MergeResult:
        """Write a blend as an ordinary PEFT adapter, read it back and compare it with the live one.

        Args:
            blend: weight by expert, or a plan that fixes all weights.
            out: the folder; must not exist.
            rank: the most that a module may have; None keeps the merge exact.
            full: write the whole base model with the blend in its weights instead.

        Raises:
            PlanError: the plan's weights depend on the token.
            BankError: an expert is not in the bank.
            ConfigError: a weight or the rank is out of range.
            BaseModelError: the base model is quantised.
            StorageError: the folder exists or cannot be written.
        """
        with self._live_experts(), self._one_at_a_time:
            return merge_and_check(
                self.model, self.tokenizer, as_blend(blend), Path(out), rank=rank, full=full
            )

    def blend_for(self, prompt: str, *, chat: bool = False) -> RoutingPlan:
        """One set of weights a block for a prompt, as `fold`, `merge` and every `plan` take it.

            studio.merge(studio.blend_for("Count the users."), "counting")

        Under a router that decides once for a prompt (`pool: prompt`, or `prefix` for the tokens
        after it) this plan changes nothing, except where the routers of one block differ (scope
        `module`). Under any other the weights are the mean over the prompt's tokens.

        Args:
            prompt: as for `generate`.
            chat: likewise.

        Raises:
            TextError, ContextLengthError: as for `generate`.
            PlanError: a block's weights are none that a plan can give; or a blend is folded.
        """
        ids = self._author.read_prompt(prompt, chat=chat)
        with self._live_experts():
            trace = record_prompt(
                self.model, self._texts, ids, alternatives=0, turn=self._one_at_a_time
            )
        return text_blend(trace, router=self.bank.router, num_layers=self.model.num_layers)

    def route_plan(self, prompt: str, *, chat: bool = False) -> pd.DataFrame:
        """Which experts each token of a prompt will go through, before anything is run.

            routes = studio.route_plan("Count the users.")
            studio.generate("Count the users.", plan=lmoe.plan_of_routes(routes))

        Only routers that read ids alone know that (kind `pre`). The frame can be edited: as a plan
        it gives the tokens what it says.

        Args:
            prompt: as for `generate`.
            chat: likewise.

        Raises:
            TextError, ContextLengthError: as for `generate`.
            ConfigError: the routers read hidden states.
        """
        ids = self._author.read_prompt(prompt, chat=chat)
        with self._one_at_a_time:  # for the routers may be adapting
            return known_routes(self.model, self._texts, ids)

    def adapt(
        self,
        texts: CorpusLike,
        *,
        text_column: str = "text",
        on_step: Callable[[AdaptStep], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> Adapted:
        """Let the routers learn from some pages of text for a moment, without labels.

            adapted = studio.adapt([text], steps=20)
            adapted.before.held_out_loss, adapted.after.held_out_loss
            studio.undo_adaptation()

        They learn from the beginning of each text; its end says whether that helped, and the best
        step is the one that stays. Others who use the studio wait meanwhile. The bank on disk stays
        what it is; `save_bank(studio.bank, folder)` writes the adapted one.

        Args:
            texts: as for `evaluate`; of each as much as the model can read.
            text_column: of a file or dataset.
            on_step: hears each step; has no turn of its own, so that it cannot run the studio.
            should_stop: asked before each step; what was best until then stays.
            options: those of `AdaptOptions`: `objective` ("entropy" or "language"), `steps`,
                `learning_rate`, `held_out`.

        Raises:
            ConfigError: an option is out of range, or the router has nothing to learn.
            HubError, DataError: the texts cannot be had.
            TextError: none has three tokens.
            PlanError: a blend is folded, or a text or corpus is not finished.
            OverflowedError: the model's scores are not finite.
        """
        with opened_corpus(texts, text_column=text_column) as corpus:
            ids = [self._encode_cut(item)[: self.context_length] for item in corpus]
        with self._between_calls("the routers can be adapted"):
            found = adapt(self.model, ids, on_step=on_step, should_stop=should_stop, **options)
            self._take_routers(found.state)
        return found

    def build_memory(
        self,
        examples: Mapping[str, CorpusLike],
        *,
        router: RouterSettings | None = None,
        per_expert: int = 64,
        text_column: str = "text",
    ) -> ExpertBank:
        """The loaded bank under a router that goes by the nearest examples; nothing is trained.

            bank = studio.build_memory({"sql": "sql.txt", "french": ["Il fait beau.", …]})

        Args:
            examples: by the name of each expert, texts that it is for, given as for `evaluate`.
            router: its settings, of kind `knn`; None takes the usual ones.
            per_expert: the most tokens of an expert's examples that are remembered.
            text_column: of files and datasets.

        Raises:
            ConfigError: an expert has no examples, or examples no expert; or the router is of another kind.
            TextError: an expert's examples have no text of two tokens.
            HubError, DataError: examples cannot be had.
        """
        with self._live_experts(), self._one_at_a_time:
            return build_memory(
                self.base,
                self.bank,
                examples,
                settings=router,
                per_expert=per_expert,
                text_column=text_column,
            )

    def distil(
        self,
        texts: CorpusLike,
        *,
        router: RouterSettings | None = None,
        text_column: str = "text",
        on_step: Callable[[int, float], None] = lambda *_: None,
        should_stop: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> Distilled:
        """A bank like the loaded one, whose router knows all routes from token ids alone.

            found = studio.distil("texts.jsonl", steps=500)
            found.after.agreement, save_bank(found.bank, "readable")

        Args:
            texts: as for `evaluate`; of each as much as the model can read.
            router: settings of the new router, of kind `pre`; None has one route for all layers.
            text_column: of a file or dataset.
            on_step: hears each step, from 1, and its loss; it cannot run the studio.
            should_stop: asked before each step.
            options: those of `DistilOptions`: `steps`, `learning_rate`, `held_out`.

        Raises:
            ConfigError: an option is out of range, or the kind reads hidden states.
            HubError, DataError: the texts cannot be had.
            TextError: there is too little text.
            PlanError: a blend is folded.
        """
        with opened_corpus(texts, text_column=text_column) as corpus:
            ids = [self._encode_cut(item)[: self.context_length] for item in corpus]
        with self._live_experts(), self._one_at_a_time:
            return distil(
                self.base,
                self.model,
                ids,
                settings=router,
                on_step=on_step,
                should_stop=should_stop,
                **options,
            )

    def undo_adaptation(self) -> None:
        """Put the routers back that the bank was loaded with, to the bit.

        Raises:
            PlanError: a blend is folded, or a text or corpus is not finished.
        """
        with self._between_calls("an adaptation can be undone"):
            self._take_routers(self._loaded_routers)

    @contextmanager
    def fold(self, plan: PlanLike, *, everywhere: bool = False) -> Iterator[None]:
        """Put a fixed blend into the base model's weights, so that it runs at the base's speed.

            with studio.fold(lmoe.RoutingPlan([lmoe.Override.blend({"sql": 0.6, "math": 0.4})])):
                studio.generate("Count the users.")

        Inside, `trace`, `generate` and `stream` take no plan of their own; a trace shows the blend
        as the weights applied and this plan as its plan, and beside them what the routers would
        have said. Afterwards the base model's weights are what they were, to the last bit: they are
        never written to. Meanwhile there is a second copy of those that the experts change.

        Args:
            plan: must fix the weights of all tokens in every layer, as for `merge`.
            everywhere: calls of all threads run the blend; else those of others are refused meanwhile.

        Raises:
            PlanError: the plan does not fit this bank or leaves weights to the router, the base is
                quantised, a blend is folded already, or a text or corpus is not finished.
        """
        thread = None if everywhere else get_ident()
        folding = folded(self.model, as_plan(plan) or RoutingPlan(), thread)
        with self._one_at_a_time:
            folding.__enter__()
            if self._one_at_a_time.calls:
                folding.__exit__(None, None, None)
                raise PlanError(_UNFINISHED.format("a blend can be folded into the weights"))
        try:
            yield
        finally:
            with self._one_at_a_time:
                folding.__exit__(None, None, None)

    @contextmanager
    def _between_calls(self, what: str) -> Iterator[None]:
        """Everyone's turn at once, while nobody is in the middle of a text; `what` then is done."""
        with self._one_at_a_time:
            if self.model.folded is not None:
                raise PlanError(_FOLDED)
            if self._one_at_a_time.calls:
                raise PlanError(_UNFINISHED.format(what))
            yield

    def _take_routers(self, state: dict[str, Tensor]) -> None:
        self.model.take_routers(state)
        self.bank = self.model.bank

    @contextmanager
    def _live_experts(self) -> Iterator[None]:
        """A call, perhaps of several turns, that needs the experts beside the weights."""
        with self._one_at_a_time.call():
            if self.model.folded is not None:
                raise PlanError(_FOLDED)
            yield

    @property
    def card(self) -> BankCard:
        """What is loaded."""
        return bank_card(self.model, self.context_length)

    def _read(self, text: str, max_tokens: int | None) -> list[int]:
        if not one_text(text, "The text", "; for many, use trace_corpus").strip():
            raise TextError("The text is blank; type or paste something to trace.")
        most = _most_tokens(max_tokens)
        if most is None or most > self.context_length:
            return self._ids.whole(text)
        return self._ids.first(text, most) or self._ids.whole(text)  # which says why there is none

    def _encode_cut(self, item: LabelledText) -> list[int]:
        """One token more than the model reads where there are more, so that a cut is seen."""
        most = self.context_length + 1
        if not item.turns:
            return self._ids.first(item.text, most)
        try:
            return self._ids.first_of_chat(item.turns, most)
        except TextError as error:
            raise DataError(f"{item.where}: {error}") from None


def _same_base(
    base: BaseModel, wanted: str, device: str, dtype: str, quantize: Quantize | None
) -> BaseModel | None:
    """A base model that is there already, if it is the one that is wanted."""
    weights, place = next(base.model.parameters()), choose_device(device)
    is_same = (
        base.identity.id == wanted
        and weights.device.type == place.type
        and place.index in (None, weights.device.index)
        and weights.dtype == choose_dtype(dtype, place)
        and is_as_asked(base.model, quantize)
    )
    return base if is_same else None


def _most_tokens(given: object) -> int | None:
    return None if given is None else whole_number(given, "max_tokens", least=1)


def available_banks() -> list[str]:
    """Names of the banks that come with the package, then those of the person's own."""
    return [*shipped_banks(), *own_banks()]
