"""A retraining publishes what is not worse, and nothing else."""

from __future__ import annotations

import json
import tomllib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.build.reindex import Request, make_snapshot
from index.catalogue.open import open_catalogue, open_histories
from index.events.import_events import import_interactions
from index.snapshot.checkpoints import checkpoint_path
from index.snapshot.publication import published, rollback
from index.snapshot.snapshot import SnapshotStore, read_manifest
from retraining.cli import NOT_PUBLISHED, retrain_command
from retraining.retrain import Options, last_attempt, retrain
from seqrec.checkpoint import TRAINING, load_checkpoint
from seqrec.data.items import read_interactions
from seqrec.encoder import Encoder
from seqrec.errors import InputError, SnapshotError
from seqrec.training_run import read_curves, read_metadata
from tests.retraining.conftest import ITEMS, USERS, day, write_events

pytestmark = pytest.mark.slow


def served(home: Path) -> str:
    with closing(open_catalogue(home)) as catalogue:
        snapshot_id = published(catalogue)
        assert snapshot_id is not None
        return snapshot_id


def add_day(home: Path, number: int, random: bool = False) -> None:
    events = write_events(home / "day.csv", day(number, np.random.default_rng(number), random))
    with closing(open_histories(home)) as histories:
        import_interactions(histories, read_interactions(events))


def hide(home: Path, item_ids: list[str]) -> None:
    with closing(open_catalogue(home)) as catalogue:
        found = catalogue.get_many(item_ids)
        catalogue.put([replace(one, item=replace(one.item, available=False)) for _, one in found.values()])


def report_of(folder: Path | None) -> dict[str, Any]:
    assert folder is not None
    record: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return record


def test_a_good_candidate_is_published_and_can_be_rolled_back(home: Path) -> None:
    before = served(home)
    add_day(home, 10)
    stages: list[str] = []
    outcome = retrain(home, home, progress=lambda stage, done, total: stages.append(stage))
    assert outcome.result == "published"
    assert list(dict.fromkeys(stages))[:3] == ["export", "check", "train"]
    assert served(home) == outcome.snapshot != before
    record = report_of(outcome.report)
    assert record["result"] == "published"
    assert record["verdict"]["passed"]
    assert record["recipe"]["stages"] == ["joint", "hybrid"]
    assert record["recipe"]["start"] == "the weights of the served recformer"
    with closing(open_catalogue(home)) as catalogue:
        manifest = read_manifest(SnapshotStore(home).path_of(str(published(catalogue))))
    stored = tomllib.loads((checkpoint_path(home, manifest) / TRAINING).read_text())
    assert Path(stored["hybrid"]["settings_from"]).parent == home / "checkpoints", "the search begins where it ended"
    assert record["parts"].keys() == {"served", "candidate"}
    assert len(record["users"]) == 10
    assert record["data"]["events"] == 11 * 3 * USERS
    assert not (home / "retrain" / ".work").exists()
    assert outcome.report is not None
    assert not (outcome.report / "checkpoint").exists(), "it is in the home's checkpoints"
    assert [curve.stage for curve in read_curves(outcome.report / "run" / "metrics.jsonl")]
    assert (read_metadata(outcome.report / "run") or {})["state"] == "done"
    text = (outcome.report / "report.md").read_text()
    for part in ("## Before and after", "## What changed", "## Data", "## 10 users before and after", "rollback"):
        assert part in text
    with closing(open_catalogue(home)) as catalogue:
        assert rollback(home, catalogue) == before
    assert retrain(home, home).result == "nothing new"
    last = last_attempt(home)
    assert last is not None
    assert (last["result"], last["report"]) == ("published", outcome.report.name)


def test_models_whose_events_fade_are_compared_part_by_part(home: Path) -> None:
    add_day(home, 10)
    outcome = retrain(home, home, Options(overrides=["hybrid.half_life_days=20"]))
    record = report_of(outcome.report)
    assert record["result"] in ("published", "not published")
    assert 0 < record["parts"]["candidate"]["co-occurrence"] <= 1


def test_a_worse_candidate_is_kept_and_not_served(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = served(home)
    add_day(home, 10)
    hybrid = Encoder.hybrid.fget  # type: ignore[attr-defined]

    def worse(self: Encoder) -> Any:
        """Of the candidate: all items have the same score, which must not be taken for the best one."""
        settings = hybrid(self)
        if ".work" not in self.checkpoint.path.parts:
            return settings
        return replace(settings, pairs=0.0, last_text=0.0, recent_text=0.0, dense=0.0)

    monkeypatch.setattr(Encoder, "hybrid", property(worse))
    outcome = retrain(home, home)
    assert (outcome.result, served(home)) == ("not published", before)
    assert "the candidate is worse" in outcome.reason
    assert outcome.report is not None
    assert load_checkpoint(outcome.report / "checkpoint").model_name == "hybrid"
    verdict = report_of(outcome.report)["verdict"]
    assert verdict["difference"]["low"] < verdict["limit"] < 0
    assert "`seqrec reindex --checkpoint" in (outcome.report / "report.md").read_text()


def test_who_is_asked_not_to_publish_compares_only(home: Path) -> None:
    before = served(home)
    add_day(home, 10)
    outcome = retrain(home, home, Options(publish=False))
    assert (outcome.result, served(home)) == ("not published", before)
    assert report_of(outcome.report)["verdict"]["passed"]


def test_another_model_that_was_published_meanwhile_stays(home: Path, bag_of_words_checkpoint: Path) -> None:
    add_day(home, 10)
    other: list[str] = []

    def publish_another(stage: str, done: int, total: int) -> None:
        if stage == "evaluate" and not other:
            other.append(make_snapshot(home, Request(checkpoint=bag_of_words_checkpoint)).manifest.snapshot_id)

    with pytest.raises(SnapshotError, match="another model is served by now"):
        retrain(home, home, progress=publish_another)
    assert served(home) == other[0]
    last = last_attempt(home)
    assert last is not None
    assert last["result"] == "failed"


def test_one_at_a_time(home: Path) -> None:
    with (
        closing(open_catalogue(home)) as catalogue,
        catalogue.lease("retrain"),
        pytest.raises(SnapshotError, match="already retraining"),
    ):
        retrain(home, home)


def test_what_cannot_be_trained_on_has_a_way_out(home: Path, tmp_path: Path) -> None:
    with closing(open_histories(home)) as histories:
        for user in {event.user_id for event in histories.scan()}:
            histories.delete(user)
    with pytest.raises(InputError, match="seqrec events import"):
        retrain(home, home)
    add_few = [("u", ITEMS[0], 1_700_000_000), ("u", ITEMS[1], 1_700_000_001)]
    with closing(open_histories(home)) as histories:
        import_interactions(histories, read_interactions(write_events(tmp_path / "few.csv", add_few)))
    outcome = retrain(home, home)
    assert outcome.result == "refused"
    assert "too few users" in outcome.reason
    open_catalogue(tmp_path / "empty", create=True).close()
    with pytest.raises(SnapshotError, match="index build"):
        retrain(tmp_path / "empty", tmp_path / "empty")


def test_random_events_are_not_trained_on(home: Path) -> None:
    before = served(home)
    add_day(home, 10, random=True)
    outcome = retrain(home, home)
    assert outcome.result == "refused"
    assert "do not look like those before them" in outcome.reason
    assert served(home) == before
    record = report_of(outcome.report)
    assert (record["result"], "verdict" in record) == ("refused", False)
    assert record["events"]["newest"]["value"] < record["events"]["before"]["value"] / 2


def test_half_of_the_items_gone_is_not_published(home: Path) -> None:
    before = served(home)
    add_day(home, 10)
    hide(home, ITEMS[::2])
    outcome = retrain(home, home)
    assert (outcome.result, served(home)) == ("refused", before)
    assert "24 of 48 items that are served (50%) have gone" in outcome.reason
    assert outcome.report is not None
    assert "served as before" in (outcome.report / "report.md").read_text()


def test_a_poisoned_day_is_not_published(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both at once, by the command."""
    before = served(home)
    add_day(home, 10, random=True)
    hide(home, ITEMS[::2])
    with pytest.raises(SystemExit) as ended:
        retrain_command(["--home", str(home), "--json"])
    assert ended.value.code == NOT_PUBLISHED
    assert json.loads(capsys.readouterr().out)["result"] == "refused"
    assert served(home) == before


def test_a_shop_in_redis(redis_url: str, home: Path, tmp_path: Path) -> None:
    """Catalogue and events in a Redis, snapshots in a home."""
    with closing(open_catalogue(home)) as catalogue:
        items = [entry.item for _, entry in catalogue.scan()]
    [checkpoint] = (home / "checkpoints").iterdir()
    events = [event for number in range(10) for event in day(number, np.random.default_rng(number))]
    events += day(10, np.random.default_rng(10), random=True)
    request = Request(checkpoint, items, interactions=write_events(tmp_path / "events.csv", events))
    made = make_snapshot(tmp_path / "shared", request, location=redis_url)
    outcome = retrain(tmp_path / "shared", redis_url)
    assert outcome.result == "refused"
    assert "do not look like those before them" in outcome.reason
    with closing(open_catalogue(redis_url)) as catalogue:
        assert published(catalogue) == made.manifest.snapshot_id
        with catalogue.lease("retrain"), pytest.raises(SnapshotError, match="retrain is already running"):
            retrain(tmp_path / "shared", redis_url)
