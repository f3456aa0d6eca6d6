"""run_training: a config in, a bank out. CLI, Python and jobs all come in here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import set_seed

from lmoe_studio.base_models import BaseModel, load_base
from lmoe_studio.errors import ConfigError, DataError, TrainingError, TrainingStopped
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.files import save_bank
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.tracing.token_texts import TokenTexts
from lmoe_studio.training.arguments import uses_bfloat16
from lmoe_studio.training.card import model_card
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.data import MixedSkills, SkillData, load_skills, sequences_of
from lmoe_studio.training.destination import check_destination
from lmoe_studio.training.evaluate import BASE_ALONE, evaluate
from lmoe_studio.training.events import (
    CheckpointRefused,
    DataReady,
    EvalDone,
    Event,
    Finished,
    Message,
    Resumed,
    ignore,
)
from lmoe_studio.training.identity import Digests, digests
from lmoe_studio.training.kept import KeptData, with_kept_data
from lmoe_studio.training.processes import Processes
from lmoe_studio.training.report import with_report
from lmoe_studio.training.run_folder import RunFolder
from lmoe_studio.training.start import choose_trained, skill_labels, starting_bank
from lmoe_studio.training.trainer import JointTrainer

Listener = Callable[[Event], None]


def run_training(
    config: TrainingConfig,
    on_event: Listener = ignore,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    run_folder: Path | None = None,
    fresh: bool = False,
    base: BaseModel | None = None,
) -> ExpertBank:
    """Train experts and router and write the bank to `config.out`.

    A run that was stopped, or killed, goes on from its newest sound checkpoint when it is started
    again. The same config and seed give the same bank on the same machine, bit for bit, however
    often it was interrupted.

    Args:
        config: what to train.
        on_event: hears what happens.
        should_stop: asked after every step; True saves a checkpoint and stops.
        run_folder: where checkpoints are kept until the bank is written; None takes a folder beside
            `config.out` whose name ends in `.run`.
        fresh: throw away what an earlier run left there, and replace a bank at `config.out`.
        base: an already loaded base model, quantised or not; it is given back as it was.

    Raises:
        TrainingStopped: it was told to stop, and saved.
        TrainingError: the loss is not finite any more, or memory ran out.
        ResumeError: an unfinished run there was begun with other options, data or base.
        StorageError: something else is at `config.out` already, or a checkpoint or the bank cannot be
            written; nothing older is lost.
        LMoEError: the config, the data or the base cannot be used.
    """
    processes = Processes.here()
    tell: Listener = on_event if processes.is_main else ignore
    folder = run_folder or config.out.with_name(f"{config.out.name}.run")
    kept = _keep(config, folder / "data", processes, tell, anew=fresh)
    data = digests(kept.config)
    check_destination(config, data, folder, fresh=fresh, processes=processes.count)
    base = base or _load_base(config, processes, tell)
    if config.sequence_length > base.context_length:
        raise ConfigError(
            f"sequence_length: {config.sequence_length:,} tokens are more than the "
            f"{base.context_length:,} that {base.identity.id} reads; choose at most those."
        )
    with (
        _memory_errors(config),
        RunFolder.opened(
            folder,
            config,
            data,
            base.identity,
            fresh=fresh,
            processes=processes.count,
            shared=not processes.is_main,
        ) as run,
    ):
        tell(Message("Reading and tokenising the texts"))
        skills = load_skills(
            kept.config, base.tokenizer, processes=processes.count, names=kept.names
        )
        if digests(kept.config) != data:
            raise DataError("The data was changed while it was read; start again.")
        tell(DataReady(tuple(skill.report for skill in skills)))
        set_seed(config.seed)
        bank = starting_bank(config, base.identity, on_progress=lambda line: tell(Message(line)))
        model = MixtureModel(base.model, bank, dtype=torch.float32, new_routers=True)
        model.texts = TokenTexts(base.tokenizer).parts
        try:
            if model.hindsight:
                tell(Message(model.hindsight))
            choose_trained(model, config)
            trainer = _train(model, config, skills, run, processes, tell, should_stop)
            bank = _finish(trainer, config, skills, data, tell)
        finally:
            model.detach()
        if processes.is_main:
            save_bank(
                bank,
                config.out,
                dtype=getattr(torch, config.save_dtype),
                card=model_card(bank, config),
                overwrite=True,
            )
            # Told before the checkpoints go: whoever kept it knows that there is nothing left to do.
            tell(Finished(str(config.out), (bank.training or {})["step"]))
            run.remove()
        processes.wait()
    return bank


def _keep(
    config: TrainingConfig, folder: Path, processes: Processes, tell: Listener, *, anew: bool
) -> KeptData:
    """The rows of datasets as files; one process takes them for all."""
    if all(isinstance(s, Path) for skill in config.skills for s in (*skill.train, *skill.held_out)):
        return KeptData(config, {})
    tell(Message("Taking the rows of the datasets"))
    return processes.main_first(
        lambda: with_kept_data(config, folder, anew=anew and processes.is_main), config.device
    )


def _load_base(config: TrainingConfig, processes: Processes, tell: Listener) -> BaseModel:
    def load() -> BaseModel:
        return load_base(
            config.base,
            device=processes.device(config.device),
            dtype="bfloat16" if uses_bfloat16(config) else "float32",
            quantize=config.quantize,
            on_progress=lambda line: tell(Message(line)),
        )

    return processes.main_first(load, config.device)


def _train(
    model: MixtureModel,
    config: TrainingConfig,
    skills: list[SkillData],
    run: RunFolder,
    processes: Processes,
    tell: Listener,
    should_stop: Callable[[], bool],
) -> JointTrainer:
    few = [s.with_held_out(config.eval_sequences * config.sequence_length) for s in skills]
    newest = run.checkpoints.newest(lambda path, reason: tell(CheckpointRefused(str(path), reason)))
    tell(Message("Measuring the base model on held-out texts"))
    base_losses = evaluate(model, few, plan=BASE_ALONE).losses
    trainer = JointTrainer(
        model.train(),
        config,
        MixedSkills(
            skills,
            sequences_of(config, processes.count),
            config.seed,
            skill_labels(config, model.bank),
        ),
        run.checkpoints,
        held_out=few,
        base_losses=base_losses,
        on_event=tell,
        should_stop=should_stop,
        processes=processes,
    )
    if newest is None:
        losses = evaluate(model, few).losses if config.bank else base_losses
        tell(EvalDone(0, base_losses, losses))
    else:
        tell(Resumed(int(newest.name.rpartition("-")[2])))
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if trainer.stopped:
        raise TrainingStopped(trainer.state.global_step, config.steps)
    model.eval()
    return trainer


def _finish(
    trainer: JointTrainer,
    config: TrainingConfig,
    skills: list[SkillData],
    data: Digests,
    tell: Listener,
) -> ExpertBank:
    model, step = trainer.mixture, trainer.state.global_step
    if trainer.best is not None:
        step, tensors = trainer.best
        trainer.restore(tensors)
    tell(Message("Measuring base model and bank on all held-out texts"))
    before = evaluate(model, skills, plan=BASE_ALONE)
    after = evaluate(model, skills)
    tell(EvalDone(step, before.losses, after.losses, final=True))
    return with_report(
        model.to_bank(),
        config,
        skills,
        data,
        base=before,
        trained=after,
        curve=trainer.curve,
        step=step,
        seconds=trainer.seconds,
        hindsight=model.hindsight,
    )


@contextmanager
def _memory_errors(config: TrainingConfig) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch says both in a RuntimeError
        signs = ("out of memory", "can't allocate memory", "cannot allocate memory")
        if not isinstance(error, MemoryError) and not any(s in str(error).lower() for s in signs):
            raise
        smaller = max(1, config.batch_size // 2)
        advice = (
            f"batch_size {smaller} with gradient_accumulation "
            f"{config.gradient_accumulation * config.batch_size // smaller}"
            if smaller < config.batch_size
            else f"sequence_length {max(8, config.sequence_length // 2)}"
        )
        raise TrainingError(
            f"Memory ran out with batch_size {config.batch_size} and sequence_length "
            f"{config.sequence_length}; the last checkpoint is kept. Try {advice}, or "
            "gradient_checkpointing."
        ) from None
