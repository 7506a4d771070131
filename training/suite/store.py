"""The experiments of a suite on disk: a run directory and its evaluation.json each.

The directory name ends with a digest of everything that determines the result: settings, data, start and version. So a
finished experiment is reused, an interrupted one is resumed, and other settings make another directory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from seqrec import __version__
from seqrec.data.files import write_text
from seqrec.encoder import Encoder, load_model
from seqrec.errors import InputError, SeqrecError
from seqrec.training_run import read_metadata
from training.config.schema import RunConfig, StageConfig
from training.data.dataset import Dataset
from training.engine.run import train_on
from training.engine.run_directory import RunDirectory
from training.evaluation.baselines import best_item_knn, popularity
from training.evaluation.comparison import RESAMPLES
from training.evaluation.evaluate import EncodedItems, model_scorer
from training.evaluation.groups import groups_of
from training.evaluation.ranking import CANDIDATE_MODES, PESSIMISTIC, Scorer, case_ranks
from training.evaluation.significance import interval, resampled_means
from training.stages.start import starting_point
from training.suite.data import PartlyTrained
from training.suite.plan import MODEL, Experiment

K = 10
FIGURES = (f"NDCG@{K}", f"Recall@{K}", "MRR", f"NDCG@{K}{PESSIMISTIC}")
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ExperimentStore:
    """`folder`, `other_folders`: where the data set and those to pretrain on were read from."""

    out: Path
    dataset: Dataset
    folder: Path
    others: Sequence[Dataset] = ()
    other_folders: Sequence[Path] = ()
    text_encoder: Path | None = None
    _shares: dict[float, Dataset] = field(default_factory=dict)

    def path(self, experiment: Experiment) -> Path:
        name = re.sub(r"[^a-z0-9]+", "-", experiment.name.lower().replace("%", "percent")).strip("-")
        return self.out / "cells" / f"{name}-{self.digest(experiment)[:12]}"

    def digest(self, experiment: Experiment) -> str:
        """A digest of everything that determines the result."""
        inputs = [
            __version__,
            experiment.model,
            "" if experiment.config is None else _deciding_settings(experiment.config),
            self.data(experiment.share).digest,
            *[dataset.digest for dataset in self.others if experiment.others or experiment.other_domains],
            "" if experiment.start is None else self.digest(experiment.start),
            self._encoder_digest if self._starts_from_encoder(experiment) else "",
        ]
        return hashlib.sha256("\n".join(inputs).encode()).hexdigest()

    def data(self, share: float) -> Dataset:
        """The data set with a share of its users in training; cached."""
        if share not in self._shares:
            self._shares[share] = self.dataset if share == 1 else PartlyTrained.of(self.dataset, share)
        return self._shares[share]

    def trained_on(self, experiment: Experiment) -> Sequence[Dataset]:
        if experiment.others:
            return self.others
        return [self.data(experiment.share), *(self.others if experiment.other_domains else ())]

    def config(self, experiment: Experiment, start: Path | None = None) -> RunConfig:
        """The configuration of an experiment with the paths filled in. `start` overrides its start."""
        assert experiment.config is not None
        config = experiment.config
        if start is None and experiment.start is not None:
            start = self.path(experiment.start) / "checkpoint"
        elif start is None and self._starts_from_encoder(experiment):
            start = self.text_encoder
        if start is not None:
            config = replace(config, model=replace(config.model, start_from=str(start)))
        if "pretrain" in config.stages:
            names = tuple(map(str, self.other_folders if experiment.others else [self.folder]))
            config = replace(config, pretrain=replace(config.pretrain, data=names, zero_shot=(str(self.folder),)))
        if experiment.other_domains:
            config = replace(config, adversarial=replace(config.adversarial, data=tuple(map(str, self.other_folders))))
        return config

    def evaluation(self, experiment: Experiment) -> Record | None:
        """The stored evaluation; None before it is done."""
        try:
            record: Record = json.loads((self.path(experiment) / "evaluation.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record

    def make(self, experiment: Experiment) -> None:
        """Trains the model if needed, resuming an interrupted run, and evaluates it. Raises SeqrecError."""
        path, dataset = self.path(experiment), self.data(experiment.share)
        if experiment.config is None:
            path.mkdir(parents=True, exist_ok=True)
            record = measure(_baselines(dataset), dataset)
        else:
            metadata = read_metadata(path)
            if metadata is None or metadata["state"] != "done":
                start = starting_point(self.config(experiment))
                anew = not _can_resume(path, start.config)
                train_on(
                    start,
                    self.trained_on(experiment),
                    path,
                    anew,
                    {"cell": experiment.name, "inputs": self.digest(experiment)},
                )
            metadata = read_metadata(path)
            assert metadata is not None
            encoder = load_model(path / "checkpoint", experiment.config.device or None)
            record = measure(_scorers(encoder, dataset), dataset)
            record |= {name: metadata[name] for name in ("steps", "seconds", "ended", "checkpoint_digest")}
        record |= {"cell": experiment.name, "inputs": self.digest(experiment), "data_digest": dataset.digest}
        write_text(path / "evaluation.json", json.dumps(record) + "\n")

    def _starts_from_encoder(self, experiment: Experiment) -> bool:
        return self.text_encoder is not None and experiment.from_text_encoder and experiment.start is None

    @cached_property
    def _encoder_digest(self) -> str:
        assert self.text_encoder is not None
        if not self.text_encoder.is_dir():
            raise SeqrecError(f"{self.text_encoder} is not a directory with a text encoder")
        digest = hashlib.sha256()
        for path in sorted(path for path in self.text_encoder.iterdir() if path.is_file()):
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()


def _deciding_settings(config: RunConfig) -> str:
    """The settings that determine the result, without those of unused stages."""
    table = asdict(replace(config, threads=0, device="", save_minutes=0.0))
    unused = [name for name in table if isinstance(getattr(config, name), StageConfig) and name not in config.stages]
    return json.dumps({name: value for name, value in table.items() if name not in unused}, sort_keys=True)


def _can_resume(path: Path, config: RunConfig) -> bool:
    """Whether an unfinished run can be resumed: not if it failed, or had other threads or paths, which are not part of
    the digest."""
    try:
        RunDirectory(path).check(config, overwrite=False)
    except InputError:
        return False
    return True


def measure(scorers: Mapping[str, Scorer], dataset: Dataset) -> Record:
    """Test results of each scorer: FIGURES with intervals by candidate mode and group of targets, and NDCG by user."""
    cases = dataset.cases("test")
    groups = [group for group in groups_of(dataset, cases) if group.breakdown == "targets"]
    methods: Record = {}
    ndcg_by_user: Record = {}
    for name, scorer in scorers.items():
        methods[name] = {}
        for protocol, ranked in case_ranks(scorer, cases, len(dataset.items)).items():
            figures = ranked.figures([K])
            values = np.stack([figures[figure] for figure in FIGURES], axis=1)  # [users, figures]
            members = [group.members[ranked.counted] for group in groups]
            drawn = resampled_means(values, members, RESAMPLES, seed=0)
            methods[name][protocol] = {
                group.name: _figures(values[chosen], *interval(means))
                for group, chosen, means in zip(groups, members, drawn, strict=True)
                if chosen.any()
            }
            if protocol == CANDIDATE_MODES[0]:
                ndcg_by_user[name] = np.round(values[:, 0], 5).tolist()
    return {"users": len(cases), "items": len(dataset.items), "methods": methods, "ndcg_of_users": ndcg_by_user}


def _figures(values: Any, low: Any, high: Any) -> Record:
    ends = zip(FIGURES, values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return {"users": len(values)} | {figure: own for figure, *own in ends}


def _baselines(dataset: Dataset) -> dict[str, Scorer]:
    histories = dataset.cases("test").histories
    popular, knn = popularity(dataset), best_item_knn(dataset, "test")
    return {
        "popularity": lambda numbers: np.repeat(popular[None], len(numbers), axis=0),
        "item-kNN": lambda numbers: knn.scores([histories[number] for number in numbers]),
    }


def _scorers(encoder: Encoder, dataset: Dataset) -> dict[str, Scorer]:
    """The model, and for a text model also the items nearest to the last item of the history."""
    cases = dataset.cases("test")
    items = EncodedItems.of(encoder, dataset)
    scorers: dict[str, Scorer] = {MODEL: model_scorer(encoder, items, dataset, cases, "test")}
    if encoder.cold_items:
        last = np.array([history[-1] for history in cases.histories], dtype=np.int64)
        scorers["last item"] = lambda numbers: items.scores(items.of_rows(last[numbers]))
    return scorers
