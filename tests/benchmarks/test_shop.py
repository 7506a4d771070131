from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale import shop
from seqrec.shop.project import read_project


@pytest.mark.slow
def test_an_export_of_about_the_size(tmp_path: Path) -> None:
    shop.write_export(tmp_path, 6290, 529_020)
    assert len((tmp_path / "products.csv").read_text().splitlines()) == 6291
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 529_021


def test_a_program_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        shop.run(["-c", "raise SystemExit('no such thing')"], tmp_path)


@pytest.mark.slow
def test_every_step_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    made.mkdir()
    shop.write_export(made, 3145, 264_510)
    for command in shop.STEPS.values():
        used = shop.run(command, made)
        assert used.cpu > 0
        assert used.peak > 10
    assert read_project(made).config.events.user == "user_id"
    out = tmp_path / "report.json"
    monkeypatch.setattr(shop, "STEPS", {"nothing": ["-c", ""]})
    shop.main(["--events", "264510", "--items", "3145", "--json", str(out)])
    assert [line["value"] > 0 for line in json.loads(out.read_text())["lines"]] == [True] * 3
