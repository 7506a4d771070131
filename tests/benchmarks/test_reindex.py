from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.speed import reindex, startup
from benchmarks.tools.report import Report
from benchmarks.tools.service_process import make_checkpoint
from benchmarks.tools.synthetic import item
from index.build.reindex import Request
from index.catalogue.open import open_catalogue
from index.snapshot.snapshot import SnapshotStore

SMALL = ["--layers", "1", "--hidden", "32", "--rounds", "1"]


@pytest.mark.slow
def test_a_job_is_timed_and_leaves_nothing(tmp_path: Path) -> None:
    reindex.fill(tmp_path, [item(number) for number in range(1500)])
    with closing(open_catalogue(tmp_path)) as catalogue:
        assert catalogue.count() == 1500
    checkpoint = make_checkpoint(tmp_path / "checkpoint", dim=8)
    assert reindex.job(tmp_path, Request(checkpoint, device="cpu", publish=False)) > 0
    assert SnapshotStore(tmp_path).list() == []


@pytest.mark.slow
def test_reindex_reports_every_size(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    reindex.main([*SMALL, "--sizes", "20", "60", "--dim", "8", "--encoded", "10", "--json", str(out)])
    lines = json.loads(out.read_text())["lines"]
    assert [(line["name"], line["against"]) for line in lines] == [
        ("encoding alone", ""),
        ("reindex", "encoding alone"),
        ("no vector known", ""),
        ("all vectors known", ""),
        ("no vector known", "20 items"),
        ("all vectors known", "20 items"),
    ]
    assert all(line["value"] > 0 for line in lines)


@pytest.mark.slow
def test_startup_asks_until_it_is_answered(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    startup.main([*SMALL, "--sizes", "20", "--threads", "1", "--json", str(out)])
    seconds = {line["name"]: line["value"] for line in json.loads(out.read_text())["lines"]}
    for known in ("opened before", "first on this host"):
        assert 0 < seconds[f"/healthz, {known}"] <= seconds[f"/readyz, {known}"]


@pytest.mark.slow
def test_a_service_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the service does not answer /healthz:\n(.|\n)*there is no catalogue in"):
        startup.seconds_to_answers(tmp_path / "nothing", tmp_path / "log", 1, 1)


def test_starts_are_compared_with_the_smallest_catalogue() -> None:
    def starts(ready: float) -> dict[str, list[dict[str, float]]]:
        return {"opened before": [{"/healthz": 1.0, "/readyz": ready}, {"/healthz": 1.0, "/readyz": ready + 2}]}

    report = Report("startup", "", {})
    startup.add_lines(report, {10: starts(2), 1000: starts(5)})
    *_, ready = report.lines
    assert (ready.part, ready.value, ready.against) == ("1,000 items", 6, "10 items")
    assert ready.ratio is not None
    assert (ready.ratio.least, ready.ratio.most) == (5 / 3, 7 / 3)
