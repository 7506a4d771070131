"""A training run: reads the data, trains the stages in order and writes the run directory."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from seqrec import __version__
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import OnError
from seqrec.encoder import Encoder
from seqrec.errors import InputError, SeqrecError
from training.config.load import dump_config
from training.config.schema import RunConfig
from training.data.dataset import Dataset, read_dataset
from training.distributed import (
    ParallelModel,
    all_gather_objects,
    barrier,
    broadcast_from_rank0,
    is_sharded,
    join_processes,
    processes,
    rank,
    set_threads,
)
from training.engine import curves
from training.engine.logger import MetricsWriter, StageLogger
from training.engine.loop import CheckpointHooks, StageResult, fit, metrics_of, trainable
from training.engine.run_directory import RunDirectory
from training.engine.shared_cores import ThreadAdapter
from training.engine.state import State, random_state, seed_everything, set_random_state
from training.evaluation.evaluate import validation_metrics
from training.evaluation.metrics import Metrics
from training.stages.adversarial import AdversarialStage, other_datasets
from training.stages.base import Stage, StageContext, Towers, TrainingData, stage_class
from training.stages.encoding import Encoding
from training.stages.pretraining import PretrainStage
from training.stages.start import Start, starting_point

log = logging.getLogger(__name__)


def train(
    config: RunConfig,
    items: Path,
    interactions: Path,
    out: Path,
    on_error: OnError = "raise",
    overwrite: bool = False,
) -> StageResult:
    """Trains as configured and writes the run directory `out`; an unfinished run there is resumed.

    Raises InputError if `out` exists and is not such a run (unless `overwrite`), and for settings or data that cannot
    be trained on.
    """
    start = starting_point(config)
    RunDirectory(out).check(start.config, overwrite)
    dataset = read_dataset(items, interactions, start.recipe, on_error, config.data)
    return train_on(start, [dataset, *other_datasets(start.config, on_error)], out, overwrite)


def train_on(
    start: Start,
    datasets: Sequence[Dataset],
    out: Path,
    overwrite: bool = False,
    metadata: Mapping[str, Any] = {},
) -> StageResult:
    """The same with data that is already read: the run's own first, others for `pretrain` and `adversarial`.

    `metadata` is added to run.json. Returns the result of the last stage, with the steps and seconds of all stages.
    With several processes, all of them call this.
    """
    config, directory = start.config, RunDirectory(out)
    directory.check(config, overwrite)
    classes = [stage_class(name) for name in config.stages]
    device = join_processes(config.device)
    threads = set_threads(config.threads)
    log.info("computing with %s", threads)
    seed_everything(config.seed)
    with _memory_errors():
        model = start.build(datasets)
        trainable(model)
        towers = Towers(start.model_name, model)
        encoder = towers.encoder(device)
        if rank():
            # All ranks have the same weights but different dropout.
            torch.manual_seed(config.seed + rank())
        run = _Run(config, towers, datasets, encoder.device, directory, dict(metadata))
        automatic = not config.threads and "OMP_NUM_THREADS" not in os.environ
        if automatic and encoder.device.type == "cpu" and processes() == 1:
            run.between_steps = ThreadAdapter(threads.count)
        try:
            return run.train(classes, overwrite)
        finally:
            directory.close()


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns the allocators' errors into a SeqrecError with the way out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise SeqrecError(
            "not enough memory: lower the batch size or the sizes in [model.settings], or set optimizer.chunk, which "
            f"encodes a batch in parts ({str(error).partition(chr(10))[0] or 'no details'})"
        ) from None


class _Run:
    def __init__(
        self,
        config: RunConfig,
        towers: Towers,
        datasets: Sequence[Dataset],
        device: torch.device,
        directory: RunDirectory,
        metadata: dict[str, Any],
    ) -> None:
        self.config, self.towers, self.device, self.directory = config, towers, device, directory
        tokenize = towers.history_model.tokenize_items
        self.data = tuple(TrainingData(dataset, tokenize(dataset.items)) for dataset in datasets)
        self.finished: list[StageResult] = []
        self.between_steps: Callable[[], object] = lambda: None
        self.sharded = is_sharded(config.sharding)
        self.metadata = {
            "seed": config.seed,
            "data_digest": ",".join(dataset.digest for dataset in datasets),
            "split": str(config.data),
            "stages": list(config.stages),
            **metadata,
            "seqrec": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "processes": processes(),
        }

    def train(self, classes: Sequence[type[Stage]], overwrite: bool) -> StageResult:
        resumed = broadcast_from_rank0(lambda: self.directory.path.exists() and not overwrite)
        if resumed and rank() == 0:
            self.directory.resume(self.metadata)
        barrier()
        state = self.directory.load_state() if resumed else None
        if state is not None:
            self._resume(state, classes)
        # Before the directory is created: the stage may refuse the data.
        prepared = self._prepare(classes[len(self.finished)])
        if not resumed and rank() == 0:
            self.directory.create(self.config, self.metadata, overwrite)
        barrier()
        self._log_start(resumed, state)
        files = self._files(state) if rank() == 0 else None
        try:
            for number in range(len(self.finished), len(classes)):
                stage, context = prepared
                loop = None if state is None else state["loop"]
                if state is not None:
                    self._load_weights(state)
                    state = None
                self.finished.append(self._fit(stage, context, files, loop))
                if number + 1 < len(classes):
                    prepared = self._prepare(classes[number + 1])
                    self._save(files, None)
            return self._finish(files)
        except SeqrecError as error:
            if rank() == 0:
                self.directory.write_metadata({**self.metadata, "state": "failed", "error": str(error)})
            raise
        finally:
            if files is not None:
                files.close()
                curves.draw(self.directory.path)

    def _resume(self, state: State, classes: Sequence[type[Stage]]) -> None:
        if state["processes"] != processes():
            raise InputError(
                f"{self.directory.path} was started with {state['processes']} processes; resume it with as many",
                "--out",
            )
        self.finished = [StageResult(**{**one, "best": metrics_of(one["best"])}) for one in state["finished"]]
        if any(kind.freezes_items for kind in classes[: len(self.finished)]):
            self.towers.freeze_items()

    def _load_weights(self, state: State) -> None:
        """Loads the weights after the stage is prepared, since a stage may replace the model."""
        if self.towers.split:
            self.towers.item_model.load_state_dict(state["item_weights"])
        if state["loop"] is None:  # stopped before the stage saved its first state
            self.towers.history_model.load_state_dict(state["weights"])
            set_random_state(state["random"][rank()])

    def _prepare(self, kind: type[Stage]) -> tuple[Stage, StageContext]:
        name = kind.name
        model = self.towers.history_model
        model.requires_grad_(True)
        optimization = self.config.optimizer_of(name)
        recompute = optimization.gradient_checkpointing
        if not model.set_gradient_checkpointing(recompute) and recompute:
            raise InputError(f"{self.towers.model_name} does not support it", "optimizer.gradient_checkpointing")
        if name != PretrainStage.name:
            model.drop_language_model_head()
        if name != AdversarialStage.name:
            model.drop_source_domains()
        if kind.freezes_items:
            self.towers.freeze_items()
        cuda = self.device.type == "cuda"
        bfloat16 = self.config.precision == "bfloat16" or (self.config.precision == "" and cuda)
        dataset, tokens = self.data[0].dataset, self.data[0].tokens

        def validate(encoder: Encoder) -> Metrics:
            cases = dataset.cases("valid").sample(self.config.validation_of(name).users, self.config.seed)
            return validation_metrics(encoder, dataset, cases, tokens)

        encoding = Encoding(optimization.chunk, bfloat16)
        context = StageContext(self.config, self.data, self.towers, self.device, encoding, validate)
        return kind.from_context(context), context

    def _fit(self, stage: Stage, context: StageContext, files: MetricsWriter | None, loop: State | None) -> StageResult:
        towers, directory = self.towers, self.directory
        if stage.closed_form:
            return self._solve(stage, files)
        # The stage may have replaced the model.
        model = ParallelModel(towers.history_model, self.sharded)
        towers.history_model.to(self.device)

        def check() -> tuple[Metrics, Mapping[str, Any]]:
            encoder = towers.encoder(str(self.device))
            own = stage.validate(encoder)  # on every rank, since it may change weights
            return broadcast_from_rank0(lambda: own or (context.validate(encoder), {}))

        def write(path: Path) -> None:
            if rank() == 0:
                item_model = towers.item_model if towers.split else None
                save_checkpoint(path, towers.model_name, towers.history_model, item_model, replace=True)

        return fit(
            model,
            stage,
            check,
            self.config.optimizer_of(stage.name),
            self.config.validation_of(stage.name),
            self.device,
            StageLogger(stage.name, files.record if files else lambda entry: None, quiet=rank() > 0),
            CheckpointHooks(
                lambda state: self._save(files, state),
                self.config.save_minutes * 60,
                best=lambda: write(directory.best),
                last=lambda: write(directory.last),
            ),
            loop,
            self.between_steps,
        )

    def _solve(self, stage: Stage, files: MetricsWriter | None) -> StageResult:
        """Every process solves the same."""
        began = time.monotonic()
        metrics, more = stage.solve()
        seconds = round(time.monotonic() - began, 3)
        reports = StageLogger(stage.name, files.record if files else lambda entry: None, quiet=rank() > 0)
        with reports:
            reports.validation(0, metrics, more, seconds)
        return StageResult(0, seconds, metrics, 0, "solved")

    def _save(self, files: MetricsWriter | None, loop: State | None) -> None:
        """`loop`: the state of the loop; None before the first step of a stage."""
        between = loop is None
        random = all_gather_objects(random_state()) if between else None
        if files is None:
            return
        towers = self.towers
        self.directory.save_state(
            {
                "processes": processes(),
                "finished": [asdict(fitted) for fitted in self.finished],
                "metrics_bytes": files.sync(),
                "weights": towers.history_model.state_dict() if between else None,
                "item_weights": towers.item_model.state_dict() if towers.split else None,
                "random": random,
                "loop": loop,
            }
        )

    def _files(self, state: State | None) -> MetricsWriter:
        if state is None:
            return MetricsWriter(self.directory.path)
        before = sum(fitted.steps for fitted in self.finished)
        step = 0 if state["loop"] is None else state["loop"]["step"]
        return MetricsWriter(self.directory.path, state["metrics_bytes"], before, step)

    def _log_start(self, resumed: bool, state: State | None) -> None:
        if rank():
            return
        if resumed:
            stage = self.config.stages[len(self.finished)]
            step = 0 if state is None or state["loop"] is None else state["loop"]["step"]
            log.info("resuming %s: stage %s, after step %d", self.directory.path, stage, step)
        dataset = self.data[0].dataset
        log.info(
            "training %s (%s weights) on %d users, %d events, %d items, with %s",
            self.towers.model_name,
            f"{sum(p.numel() for p in self.towers.history_model.parameters()):,}",
            dataset.users,
            len(dataset.events),
            len(dataset.items),
            f"{torch.get_num_threads()} threads" if self.device.type == "cpu" else self.device,
        )

    def _finish(self, files: MetricsWriter | None) -> StageResult:
        last = self.finished[-1]
        whole = replace(
            last,
            steps=sum(fitted.steps for fitted in self.finished),
            seconds=round(sum(fitted.seconds for fitted in self.finished), 3),
        )
        if files is not None:
            towers, directory = self.towers, self.directory
            item_model = towers.item_model if towers.split else None
            digest = save_checkpoint(
                directory.checkpoint,
                towers.model_name,
                towers.history_model,
                item_model,
                replace=True,
                training=dump_config(self.config),
            )
            stages = [{"stage": name, **asdict(f)} for name, f in zip(self.config.stages, self.finished, strict=True)]
            metadata = {**self.metadata, "checkpoint_digest": digest, **asdict(whole), "by_stage": stages}
            directory.write_metadata({**metadata, "state": "done"})
            directory.cleanup()
            self._log_end(whole)
        barrier()
        return whole

    def _log_end(self, whole: StageResult) -> None:
        log.info(
            "%s after %d steps, %.0f s; best weights of step %d: validation NDCG@10 %.4f (all items); wrote %s",
            whole.ended,
            whole.steps,
            whole.seconds,
            whole.best_step,
            whole.best.ndcg_expected,
            self.directory.path,
        )
        if whole.best.ties_matter:
            log.warning(
                "many items have equal scores: NDCG@10 is %.4f with ties broken at random, %.4f if the target comes "
                "first and %.4f if it comes last. Do many items have the same text?",
                whole.best.ndcg_expected,
                whole.best.ndcg,
                whole.best.ndcg_pessimistic,
            )
        for name, fitted in zip(self.config.stages, self.finished, strict=True):
            wanted = self.config.optimizer_of(name).max_steps
            if fitted.ended == "time is up" and wanted:
                log.warning(
                    "the time limit (optimizer.max_minutes) ended %s after %d of %d steps, so the model may be worse "
                    "than it could be",
                    name,
                    fitted.steps,
                    wanted,
                )
        for (name, before), (later, after) in pairwise(zip(self.config.stages, self.finished, strict=True)):
            if after.best.ndcg_expected < before.best.ndcg_expected:
                log.warning(
                    "%s ended with validation NDCG@10 %.4f, %s before it with %.4f: a run without %s would be better",
                    later,
                    after.best.ndcg_expected,
                    name,
                    before.best.ndcg_expected,
                    later,
                )
