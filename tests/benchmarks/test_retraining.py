from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import retraining
from seqrec.data.items import Interactions
from tests.retraining.conftest import CONFIG, day, write_events, write_items
from training.config.load import flat


def test_days_are_the_newest_events_in_equal_parts() -> None:
    times = np.arange(1000, dtype=np.int64)
    days = retraining.days_of(Interactions(["u"] * 1000, ["i"] * 1000, times), 4, 0.2)
    assert [(day.begin, day.end) for day in days] == [(800, 850), (850, 900), (900, 950), (950, 1000)]


@pytest.mark.slow
@pytest.mark.parametrize("summary", [True, False])
def test_a_record_is_drawn_again_alike(summary: bool, tmp_path: Path) -> None:
    values = dict.fromkeys(retraining.METHODS, 0.1)
    record: dict[str, Any] = {"days": [{"day": 1, "values": values}, {"day": 2, "values": values}]}
    if summary:
        record["summary"] = {method: {"ndcg": 0.1, "low": 0.05, "high": 0.2} for method in retraining.METHODS}
    (tmp_path / "record.json").write_text(json.dumps(record))
    drawn = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for path in drawn:
        retraining.main(["--drawn-from", str(tmp_path / "record.json"), "--picture", str(path)])
    first, second = (path.read_text() for path in drawn)
    assert first == second
    assert "<svg" in first


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_days_of_a_small_shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    events = [event for number in range(10) for event in day(number, rng)]
    data = ["--items", str(write_items(tmp_path)), "--interactions", str(write_events(tmp_path / "e.csv", events))]
    settings = {"stages": ["joint", "hybrid"], "hybrid.half_life_days": 300, **flat(tomllib.loads(CONFIG))}
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    out = tmp_path / "out.json"
    retraining.main(
        [
            *data,
            "--days",
            "2",
            "--share",
            "0.2",
            "--preset",
            "hybrid",
            *changes,
            "--json",
            str(out),
            "--picture",
            str(tmp_path / "out.svg"),
        ]
    )
    record: dict[str, Any] = json.loads(out.read_text())
    assert record["summary"].keys() == {"nothing new", "frozen model", "retrained nightly", "trained anew by hand"}
    assert record["summary"]["frozen model"]["difference"] == 0
    assert [row["result"] for row in record["days"]] == ["published", "published"]
    first = record["days"][0]["values"]
    assert first["frozen model"] == first["retrained nightly"] == first["nothing new"], "the first day knows no other"
    assert "night: published" in capsys.readouterr().out
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")
    retraining.main(["--drawn-from", str(out), "--picture", str(tmp_path / "again.svg")])
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "out.svg").read_bytes()
