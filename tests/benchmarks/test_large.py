"""The benchmark of ten million items, with a few thousand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale.large import main


@pytest.mark.slow
def test_it_measures_what_is_found_with_and_without_a_filter(tmp_path: Path) -> None:
    home, record = tmp_path / "home", tmp_path / "large.json"
    arguments = ["--items", "3000", "--dim", "16", "--index", "IVF32,SQ8", "--queries", "20", "--home", str(home)]
    for built in (True, False):  # the second time it uses the same home
        main([*arguments, "--json", str(record)])
        lines = json.loads(record.read_text(encoding="utf-8"))["lines"]
        assert any(line["part"] == "build" for line in lines) == built
        recalls = {line["part"]: line["value"] for line in lines if line["name"] == "recall@10"}
        assert list(recalls) == ["all items", "50.0% pass", "10.0% pass", "1.0% pass", "0.1% pass"]
        assert recalls.pop("all items") >= 0.9
        assert set(recalls.values()) == {1.0}, "few items are compared exactly"
