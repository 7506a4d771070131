"""The benchmark of what a request costs besides arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import floor
from benchmarks.tools.service_process import make_checkpoint
from benchmarks.tools.synthetic import make_home


@pytest.mark.slow
def test_it_measures_one_client_and_many(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_checkpoint(tmp_path / "checkpoint"), 40)
    small = ["--history", "5", "--clients", "3", "--workers", "1", "--requests", "12", "--rounds", "1"]
    floor.main(["--home", str(home), *small, "--json", str(tmp_path / "out.json")])
    lines = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["lines"]
    assert [line["name"] for line in lines[:2]] == ["p50", "p99"]
    assert {line["part"] for line in lines} == {"1 workers, 1 clients", "1 workers, 3 clients"}
    assert all(line["value"] >= 0 for line in lines)
