from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from benchmarks.speed import threads
from benchmarks.tools.report import Report, Spread

SMALL = ["--layers", "1", "--hidden", "32", "--tokens", "16", "--threads", "1", "--seconds", "0.1", "--rounds", "1"]


@pytest.mark.slow
def test_all_are_timed_alone_and_with_busy_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 1)
    monkeypatch.setattr(threads, "CATALOGUE", 40)
    monkeypatch.setattr(threads, "POLICIES", {"PASSIVE": "ours"})
    threads.main([*SMALL, "--json", str(tmp_path / "out.json")])
    lines = json.loads((tmp_path / "out.json").read_text())["lines"]
    assert [line["against"] for line in lines] == ["", "alone"] * 2
    assert all(line["value"] > 0 for line in lines)


def test_busy_processes_are_ended() -> None:
    before = set(psutil.Process().children())
    with threads.busy_processes(2):
        started = set(psutil.Process().children()) - before
        assert len(started) == 2
    assert not any(process.is_running() for process in started)


def test_medians_of_a_round_are_compared() -> None:
    report = Report("threads", "", {})
    threads.add_lines(report, "forward", "ours", [([0.01, 0.02, 0.03], [0.05, 0.04, 0.06]), ([0.01], [0.04])])
    alone, busy = report.lines
    assert (alone.value, busy.value, busy.ratio) == (15, 45, Spread(3.25, 2.5, 4))
    assert report.notes == ["forward, ours: the slowest with busy processes took 60 ms"]
