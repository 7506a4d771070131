"""A cell of a suite on disk: a run directory named by what went into it, and evaluation.json, what came of it.

The name ends with a digest of everything that decides the result: settings, data, where it starts from, the version.
So a cell that is there is right, one that was interrupted goes on, and other settings make another cell.
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
from training.config.schema import RunConfig, StageConfig
from training.data.dataset import Dataset
from training.engine.run import train_on
from training.engine.run_directory import RunDirectory, read_about
from training.evaluation.baselines import best_item_knn, popularity
from training.evaluation.comparison import RESAMPLES
from training.evaluation.evaluate import EncodedItems, model_scorer
from training.evaluation.groups import groups_of
from training.evaluation.ranking import PESSIMISTIC, PROTOCOLS, Scorer, case_ranks
from training.evaluation.significance import interval, resampled_means
from training.stages.start import starting_point
from training.suite.data import PartlyTrained
from training.suite.plan import MODEL, Experiment

K = 10
FIGURES = (f"NDCG@{K}", f"Recall@{K}", "MRR", f"NDCG@{K}{PESSIMISTIC}")
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ExperimentStore:
    """Where cells are made, and of what. `folders`: of the data set and of those to pretrain on, for reports."""

    out: Path
    dataset: Dataset
    folder: Path
    others: Sequence[Dataset] = ()
    other_folders: Sequence[Path] = ()
    text_encoder: Path | None = None
    _shares: dict[float, Dataset] = field(default_factory=dict)

    def path(self, cell: Experiment) -> Path:
        name = re.sub(r"[^a-z0-9]+", "-", cell.name.lower().replace("%", "percent")).strip("-")
        return self.out / "cells" / f"{name}-{self.digest(cell)[:12]}"

    def digest(self, cell: Experiment) -> str:
        """Of all that decides what comes of it."""
        inputs = [
            __version__,
            cell.model,
            "" if cell.config is None else _decisive(cell.config),
            self.data(cell.share).digest,
            *[dataset.digest for dataset in self.others if cell.others or cell.beside],
            "" if cell.start is None else self.digest(cell.start),
            self._encoder_digest if self._starts_from_encoder(cell) else "",
        ]
        return hashlib.sha256("\n".join(inputs).encode()).hexdigest()

    def data(self, share: float) -> Dataset:
        """Reads nothing twice: what a data set has worked out stays with it."""
        if share not in self._shares:
            self._shares[share] = self.dataset if share == 1 else PartlyTrained.of(self.dataset, share)
        return self._shares[share]

    def trained_on(self, cell: Experiment) -> Sequence[Dataset]:
        if cell.others:
            return self.others
        return [self.data(cell.share), *(self.others if cell.beside else ())]

    def config(self, cell: Experiment, start: Path | None = None) -> RunConfig:
        """With the paths that a cell's own configuration leaves out; `start` instead of what it starts from."""
        assert cell.config is not None
        config = cell.config
        if start is None and cell.start is not None:
            start = self.path(cell.start) / "checkpoint"
        elif start is None and self._starts_from_encoder(cell):
            start = self.text_encoder
        if start is not None:
            config = replace(config, model=replace(config.model, start_from=str(start)))
        if "pretrain" in config.stages:
            names = tuple(map(str, self.other_folders if cell.others else [self.folder]))
            config = replace(config, pretrain=replace(config.pretrain, data=names, zero_shot=(str(self.folder),)))
        if cell.beside:
            config = replace(config, adversarial=replace(config.adversarial, data=tuple(map(str, self.other_folders))))
        return config

    def evaluation(self, cell: Experiment) -> Record | None:
        """What was measured; None before it was."""
        try:
            record: Record = json.loads((self.path(cell) / "evaluation.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record

    def make(self, cell: Experiment) -> None:
        """Train what is not trained, going on with what was begun, and measure it. Raises SeqrecError."""
        path, dataset = self.path(cell), self.data(cell.share)
        if cell.config is None:
            path.mkdir(parents=True, exist_ok=True)
            record = measure(_floors(dataset), dataset)
        else:
            about = read_about(path)
            if about is None or about["state"] != "done":
                start = starting_point(self.config(cell))
                anew = not _goes_on(path, start.config)
                train_on(start, self.trained_on(cell), path, anew, {"cell": cell.name, "inputs": self.digest(cell)})
            about = read_about(path)
            assert about is not None
            encoder = load_model(path / "checkpoint", cell.config.device or None)
            record = measure(_scorers(encoder, dataset), dataset)
            record |= {name: about[name] for name in ("steps", "seconds", "ended", "checkpoint_digest")}
        record |= {"cell": cell.name, "inputs": self.digest(cell), "data_digest": dataset.digest}
        write_text(path / "evaluation.json", json.dumps(record) + "\n")

    def _starts_from_encoder(self, cell: Experiment) -> bool:
        return self.text_encoder is not None and cell.on_encoder and cell.start is None

    @cached_property
    def _encoder_digest(self) -> str:
        assert self.text_encoder is not None
        if not self.text_encoder.is_dir():
            raise SeqrecError(f"{self.text_encoder} is not the directory of a text encoder")
        digest = hashlib.sha256()
        for path in sorted(path for path in self.text_encoder.iterdir() if path.is_file()):
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()


def _decisive(config: RunConfig) -> str:
    """The settings that decide what comes of a training: not those of stages that it has not."""
    table = asdict(replace(config, threads=0, device="", save_minutes=0.0))
    unused = [name for name in table if isinstance(getattr(config, name), StageConfig) and name not in config.stages]
    return json.dumps({name: value for name, value in table.items() if name not in unused}, sort_keys=True)


def _goes_on(path: Path, config: RunConfig) -> bool:
    """Whether a training that was begun can go on: not where it failed, or with other threads or paths, which are all
    that may be otherwise in a cell of the same name."""
    try:
        RunDirectory(path).check(config, overwrite=False)
    except InputError:
        return False
    return True


def measure(scorers: Mapping[str, Scorer], dataset: Dataset) -> Record:
    """Test cases ranked by each scorer: FIGURES with intervals, by protocol and group of targets; NDCG by user."""
    cases = dataset.cases("test")
    groups = [group for group in groups_of(dataset, cases) if group.breakdown == "targets"]
    methods: Record = {}
    of_users: Record = {}
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
            if protocol == PROTOCOLS[0]:
                of_users[name] = np.round(values[:, 0], 5).tolist()
    return {"users": len(cases), "items": len(dataset.items), "methods": methods, "ndcg_of_users": of_users}


def _figures(values: Any, low: Any, high: Any) -> Record:
    ends = zip(FIGURES, values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return {"users": len(values)} | {figure: own for figure, *own in ends}


def _floors(dataset: Dataset) -> dict[str, Scorer]:
    histories = dataset.cases("test").histories
    popular, knn = popularity(dataset), best_item_knn(dataset, "test")
    return {
        "popularity": lambda numbers: np.repeat(popular[None], len(numbers), axis=0),
        "item-kNN": lambda numbers: knn.scores([histories[number] for number in numbers]),
    }


def _scorers(encoder: Encoder, dataset: Dataset) -> dict[str, Scorer]:
    """The model's own; and for one that reads text the items nearest to the last one."""
    cases = dataset.cases("test")
    items = EncodedItems.of(encoder, dataset)
    scorers: dict[str, Scorer] = {MODEL: model_scorer(encoder, items, dataset, cases, "test")}
    if encoder.cold_items:
        last = np.array([history[-1] for history in cases.histories], dtype=np.int64)
        scorers["last item"] = lambda numbers: items.scores(items.of_rows(last[numbers]))
    return scorers
