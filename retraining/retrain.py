"""Trains a candidate on the service's own data, compares it with what is served, and publishes it if it is not worse.

Killed at any moment, it changes nothing that is served: until the last step it writes to its own folder, and the last
step is that of a reindex.

<home>/retrain/<time>/     report.md, report.json, and the candidate's checkpoint if it was not published
<home>/retrain/<time>/run/ settings, state and curves of its run
<home>/retrain/last.json   the last attempt: when, with what result, up to which event
<home>/retrain/.work/      while it runs: the exported data and the run
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from index.build.reindex import Request, make_snapshot
from index.catalogue.base import Catalogue
from index.catalogue.histories import HistoryStore
from index.catalogue.locks import Lease
from index.catalogue.open import Location, open_catalogue, open_histories
from index.snapshot.checkpoints import checkpoint_path
from index.snapshot.publication import KEEP, published
from index.snapshot.snapshot import Snapshot, SnapshotStore
from retraining.checks import EventCheck, check_events, items_problem, split_by_time
from retraining.comparison import TOLERANCE, Comparison, ShownUser, compare, show_users
from retraining.data import ExportedData, export
from retraining.recipe import TrainingRecipe, recipe_of
from retraining.report import Report, as_json, markdown
from seqrec.data.files import new_directory, private_directory, write_text
from seqrec.encoder import Encoder, Precision, load_model
from seqrec.errors import SeqrecError, SnapshotError
from seqrec.text.item_text import Recipe
from training.data.dataset import Dataset, read_dataset
from training.engine.run import train_on
from training.evaluation.examples import sample_users_evenly
from training.stages.start import starting_point

log = logging.getLogger(__name__)

Result = Literal["published", "not published", "refused", "nothing new"]
"""refused: the data are not fit to train on. nothing new: no event since the last attempt."""
_SHOWN_USERS = 10
_KEPT_REPORTS, _KEPT_CANDIDATES = 20, 2
_FORMAT = 1

Progress = Callable[[str, int, int], object]
"""Called with the stage, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Options:
    """config: a recipe instead of the served model's. tolerance: see `retraining.comparison.TOLERANCE`."""

    config: Path | None = None
    overrides: Sequence[str] = ()
    tolerance: float = TOLERANCE
    publish: bool = True
    force: bool = False  # also if there is no new event
    device: str | None = None
    keep: int = KEEP


@dataclass(frozen=True)
class Outcome:
    result: Result
    reason: str
    snapshot: str | None = None  # that was published
    report: Path | None = None  # the folder


@dataclass(frozen=True, eq=False)
class _Trained:
    """What was trained and how it compares."""

    recipe: TrainingRecipe
    dataset: Dataset
    checkpoint: Path
    served: Encoder
    candidate: Encoder
    comparison: Comparison
    users: Sequence[ShownUser]


def retrain(
    home: Path,
    location: Location,
    options: Options = Options(),
    progress: Progress = lambda stage, done, total: None,
) -> Outcome:
    """One attempt. Raises SnapshotError while another one runs on any host, and where nothing is served yet."""
    root = home / "retrain"
    with (
        closing(open_catalogue(location)) as catalogue,
        catalogue.lease("retrain") as lease,
        closing(open_histories(location)) as histories,
    ):
        private_directory(root)
        store = SnapshotStore(home)
        snapshot_id = published(catalogue)
        if snapshot_id is None:
            raise SnapshotError("no snapshot is published, so there is no model to compare with; `seqrec index build`")
        snapshot = store.open(snapshot_id)
        if not options.force and not _is_new(root, snapshot, histories):
            return Outcome("nothing new", "there is no event that the last retraining did not have")
        work = root / ".work"
        shutil.rmtree(work, ignore_errors=True)  # of an attempt that was killed
        private_directory(work)
        record: dict[str, Any] = {"format": _FORMAT, "started": time.time(), "result": "failed"}
        _write_last(root, record)
        try:
            attempt = _Attempt(home, location, root, work, catalogue, histories, snapshot, options, progress)
            outcome = attempt.run(lease)
        except SeqrecError as error:
            _write_last(root, record | {"ended": time.time(), "reason": str(error)})
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        record |= {"ended": time.time(), "result": outcome.result, "reason": outcome.reason}
        record |= {"log": histories.log_id, "events": attempt.events_seq, "checkpoint": snapshot.manifest.checkpoint}
        record |= {"report": None if outcome.report is None else outcome.report.name}
        _write_last(root, record)
        return outcome


class _Attempt:
    def __init__(
        self,
        home: Path,
        location: Location,
        root: Path,
        work: Path,
        catalogue: Catalogue,
        histories: HistoryStore,
        snapshot: Snapshot,
        options: Options,
        progress: Progress,
    ) -> None:
        self.home, self.location, self.root, self.work = home, location, root, work
        self.catalogue, self.histories, self.snapshot = catalogue, histories, snapshot
        self.options, self.progress = options, progress
        self.events_seq = 0
        self.began = time.time()

    def run(self, lease: Lease) -> Outcome:
        self.progress("export", 0, 1)
        exported = export(self.catalogue, self.histories, self.work)
        self.events_seq = exported.events_seq
        problem = items_problem(_served_ids(self.snapshot), _available_ids(exported))
        if problem is not None:
            return self._refuse(problem, exported, None)
        served = self._load(checkpoint_path(self.home, self.snapshot.manifest))
        self.progress("check", 0, 1)
        recipe = recipe_of(
            served.checkpoint,
            exported.items_file,
            exported.events,
            self.work,
            self.options.config,
            self.options.overrides,
        )
        start = starting_point(recipe.config)
        recipes = [one for one in (_text_recipe(served), start.recipe) if one is not None]
        files = exported.items_file, exported.interactions_file
        whole = read_dataset(*files, recipes, "skip", weights=exported.weights)
        dataset, problem = split_by_time(whole)
        if problem is not None:
            return self._refuse(problem, exported, None)
        events = check_events(dataset)
        if events.problem is not None:
            return self._refuse(events.problem, exported, events)
        self.progress("train", 0, 1)
        train_on(start, [dataset], self.work / "run", overwrite=True, metadata={"retrained": True})
        self.progress("evaluate", 0, 1)
        trained = self._compare(recipe, dataset, served)
        return self._conclude(trained, exported, events, lease)

    def _compare(self, recipe: TrainingRecipe, dataset: Dataset, served: Encoder) -> _Trained:
        checkpoint = self.work / "run" / "checkpoint"
        candidate = self._load(checkpoint)
        comparison = compare(served, candidate, dataset, self.options.tolerance, self.progress)
        users = show_users(served, candidate, dataset, sample_users_evenly(dataset, "test", _SHOWN_USERS))
        return _Trained(recipe, dataset, checkpoint, served, candidate, comparison, users)

    def _conclude(self, trained: _Trained, exported: ExportedData, events: EventCheck, lease: Lease) -> Outcome:
        verdict = trained.comparison.verdict
        snapshot_id = None
        if verdict.passed and self.options.publish:
            self.progress("publish", 0, 1)
            lease.check()
            request = Request(
                checkpoint=trained.checkpoint,
                on_error="skip",
                device=self.options.device,
                precision=cast(Precision, self.snapshot.manifest.precision),
                keep=max(2, self.options.keep),  # the served one stays, to go back to
                wait=True,
                instead_of=self.snapshot.manifest.checkpoint,
            )
            made = make_snapshot(self.home, request, self.progress, self.location)
            snapshot_id = made.manifest.snapshot_id
        result: Result = "not published" if snapshot_id is None else "published"
        reason = verdict.reason + (" (--no-publish)" if verdict.passed and snapshot_id is None else "")
        folder = self._write_report(result, reason, exported, events, trained, snapshot_id)
        return Outcome(result, reason, snapshot_id, folder)

    def _refuse(self, reason: str, exported: ExportedData, events: EventCheck | None) -> Outcome:
        folder = self._write_report("refused", reason, exported, events, None, None)
        return Outcome("refused", reason, None, folder)

    def _write_report(
        self,
        result: Result,
        reason: str,
        exported: ExportedData,
        events: EventCheck | None,
        trained: _Trained | None,
        snapshot_id: str | None,
    ) -> Path:
        folder = _free_name(self.root, self.began)
        report = Report(
            result=result,
            reason=reason,
            began=self.began,
            seconds=time.time() - self.began,
            data=exported,
            events=events,
            snapshot_before=self.snapshot.id,
            snapshot=snapshot_id,
            folder=folder,
            recipe=None if trained is None else trained.recipe,
            dataset=None if trained is None else trained.dataset,
            served=None if trained is None else trained.served,
            candidate=None if trained is None else trained.candidate,
            comparison=None if trained is None else trained.comparison,
            users=() if trained is None else trained.users,
        )
        with new_directory(folder, private=True) as directory:
            (directory / "report.md").write_text(markdown(report), encoding="utf-8")
            text = json.dumps(as_json(report), indent=1, ensure_ascii=False)
            (directory / "report.json").write_text(text + "\n", encoding="utf-8")
            if trained is not None:
                (directory / "run").mkdir()
                for name in ("config.toml", "metrics.jsonl", "run.json"):
                    shutil.copyfile(trained.checkpoint.parent / name, directory / "run" / name)
            if trained is not None and snapshot_id is None:
                shutil.copytree(trained.checkpoint, directory / "checkpoint")
        _remove_old(self.root)
        return folder

    def _load(self, checkpoint: Path) -> Encoder:
        return load_model(checkpoint, self.options.device, cast(Precision, self.snapshot.manifest.precision))


def last_attempt(home: Path) -> Mapping[str, Any] | None:
    """What last.json has; None if there was none, or the file is damaged."""
    try:
        record = json.loads((home / "retrain" / "last.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("format") == _FORMAT else None


def _write_last(root: Path, record: Mapping[str, Any]) -> None:
    write_text(root / "last.json", json.dumps(record, ensure_ascii=False) + "\n", private=True)


def _is_new(root: Path, snapshot: Snapshot, histories: HistoryStore) -> bool:
    last = last_attempt(root.parent)
    if last is None or last["result"] == "failed":
        return True
    then = (last.get("log"), last.get("events"))
    return then != (histories.log_id, histories.events_head())


def _served_ids(snapshot: Snapshot) -> list[str]:
    return [item_id for item_id, shown in zip(snapshot.item_ids, snapshot.available.tolist(), strict=True) if shown]


def _available_ids(exported: ExportedData) -> set[str]:
    with exported.items_file.open(encoding="utf-8") as file:
        return {record["item_id"] for record in map(json.loads, file) if record["available"]}


def _text_recipe(encoder: Encoder) -> Recipe | None:
    item_text = encoder.checkpoint.item_model.item_text
    return None if item_text is None else item_text.recipe


def _free_name(root: Path, when: float) -> Path:
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(when))
    return next(
        path for path in (root / f"{name}{end}" for end in ("", *map("-{}".format, range(1, 100)))) if not path.exists()
    )


def _remove_old(root: Path) -> None:
    folders = sorted(path.parent for path in root.glob("[0-9]*/report.json"))
    for folder in folders[:-_KEPT_REPORTS]:
        shutil.rmtree(folder, ignore_errors=True)
    candidates = [folder for folder in folders if (folder / "checkpoint").is_dir()]
    for folder in candidates[:-_KEPT_CANDIDATES]:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
