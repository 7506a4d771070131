"""`seqrec bench reports`, as small as can be: what it times is for a quiet machine."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest

from benchmarks.speed import reports
from index.catalogue.outcomes import Dimension, Trial
from index.catalogue.sqlite.histories import SqliteHistories


@pytest.mark.slow
def test_reports_are_timed(tmp_path: Path) -> None:
    arguments = ["--events", "3000", "--users", "50", "--days", "40", "--rounds", "1"]
    reports.main([*arguments, "--json", str(tmp_path / "out.json")])
    lines = json.loads((tmp_path / "out.json").read_text())["lines"]
    names = [f"by {name}" for name in get_args(Dimension)]
    assert [line["name"] for line in lines] == [
        *names,
        *names,
        "delete a user",
        "forget the oldest day",
        "longest write meanwhile",
    ]


def test_the_sums_are_those_that_the_store_would_keep(tmp_path: Path) -> None:
    made = reports.write(tmp_path / "bulk.sqlite3", 3000, 50, 40)
    with closing(SqliteHistories(tmp_path / "bulk.sqlite3")) as bulk, closing(SqliteHistories(tmp_path / "one")) as one:
        events = list(bulk.scan())
        assert len(events) == made
        assert 2500 < made < 3500
        one.add(events)
        last = reports.FIRST_DAY + 40
        for by in get_args(Dimension):
            rows = [(row[:3], pytest.approx(row.counts)) for row in one.outcomes(by, 0, last)]
            assert [(row[:3], row.counts) for row in bulk.outcomes(by, 0, last)] == rows
        assert [(trial[:3], trial.moments) for trial in bulk.trials()] == [approximately(t) for t in one.trials()]


def approximately(trial: Trial) -> object:
    return trial[:3], pytest.approx(trial.moments)
