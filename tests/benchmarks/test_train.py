from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import encode, train

SMALL = ["--layers", "2", "--hidden", "32", "--head-dim", "16", "--rounds", "1", "--vocab-size", "400"]


@pytest.mark.slow
def test_both_sides_learn_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main([*SMALL, "--sample-histories", "4", "--threads", "1", "--json", str(tmp_path / "out.json")])
    record = json.loads((tmp_path / "out.json").read_text())
    assert [line["name"] for line in record["lines"]] == ["authors", "ours float32", "ours bfloat16"]
    assert 0 < record["alike"]["gradients"] < train.TOLERANCE
    assert "tokens/s" in capsys.readouterr().out


@pytest.mark.slow
def test_what_computes_something_else_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "TOLERANCE", 0.0)
    with pytest.raises(SystemExit, match="our losses or gradients differ from the authors"):
        train.main([*SMALL, "--sample-histories", "2", "--threads", "1"])


@pytest.mark.slow
def test_encode_compares_four(tmp_path: Path) -> None:
    encode.main([*SMALL, "--sample-items", "8", "--sample-histories", "2", "--json", str(tmp_path / "out.json")])
    record = json.loads((tmp_path / "out.json").read_text())
    items = [line["name"] for line in record["lines"] if line["part"] == "items"]
    assert items == ["authors", "dense", "ours float32", "ours int8"]
    assert record["alike"]["items"]["ours float32"] < encode.TOLERANCE
