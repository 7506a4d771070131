from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import memory
from benchmarks.tools.report import Report
from benchmarks.tools.service_process import make_checkpoint
from benchmarks.tools.synthetic import make_home
from index.catalogue.open import open_catalogue
from index.snapshot.publication import check_servable, published
from index.snapshot.snapshot import SnapshotStore


def test_a_home_is_made_that_can_be_served(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_checkpoint(tmp_path / "checkpoint", dim=8), 1234)
    with closing(open_catalogue(home)) as catalogue:
        snapshot = SnapshotStore(home).open(str(published(catalogue)))
        check_servable(home, catalogue, snapshot.manifest)
    assert len(snapshot.item_ids) == 1234
    assert np.allclose(np.linalg.norm(snapshot.vectors, axis=1), 1, atol=1e-5)
    assert len(np.unique(snapshot.vectors, axis=0)) == 1234


@pytest.mark.slow
def test_both_processes_are_measured(tmp_path: Path) -> None:
    arguments = ["--sizes", "50", "20000", "--dim", "64", "--rounds", "1", "--json", str(tmp_path / "out.json")]
    memory.main(arguments)
    values = {(line["part"], line["name"]): line for line in json.loads((tmp_path / "out.json").read_text())["lines"]}
    # Not more: what other programs of the machine share with these processes comes and goes, by some MB.
    for part in ("50 items", "20,000 items"):
        assert 30 < values[part, "of which anonymous"]["value"] < values[part, "one process"]["value"]
        assert values[part, "a second process adds"]["value"] > 30
    assert values["growth", "one process"]["ratio"] is not None


def test_ratios_are_of_the_vectors() -> None:
    def of(pss: float, second: float) -> memory.Measured:
        return memory.Measured(memory.Memory(pss, pss / 2), pss + second)

    report = Report("memory", "", {})
    memory.add_lines(report, {10: [of(100, 50), of(110, 50)], 1000: [of(220, 60), of(230, 62)]}, 100)
    *_, process, anonymous, second = report.lines
    assert (process.value, anonymous.value, second.value) == (120, 60, 11)
    assert second.ratio is not None
    assert (second.ratio.least, second.ratio.most) == (0.1, 0.12)
