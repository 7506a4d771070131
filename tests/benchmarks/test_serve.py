"""`serve` and `search`, as small as can be: what they measure is for a quiet machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import search, serve


@pytest.mark.slow
def test_the_service_is_compared_with_a_bare_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "SHARES", (0.5,))
    arguments = "--layers 1 --hidden 32 --threads 1 --clients 2 --requests 10 --seconds 0.2 --posted 10 --only-ours"
    serve.main([*arguments.split(), "--json", str(tmp_path / "out.json")])
    record = json.loads((tmp_path / "out.json").read_text())
    names = {line["name"]: line["against"] for line in record["lines"]}
    assert names == {
        "encode + search loop": "",
        "items encoded": "",
        "saturation, 2 clients": "the bare loop",
        "POST /items": "bare encoding",
        "80% repeat a history": "cold saturation",
        "longest request alone": "",
        "answered": "",
        "p50": "longest alone",
        "p90": "longest alone",
        "p99": "longest alone",
    }
    assert record["ours"]["saturation statuses"] == {"200": 10}


def test_search_is_compared_with_what_others_would_use(tmp_path: Path) -> None:
    arguments = "--sizes 300 --batches 1 5 --dim 16 --rounds 2 --threads 1"
    search.main([*arguments.split(), "--json", str(tmp_path / "out.json")])
    lines = json.loads((tmp_path / "out.json").read_text())["lines"]
    assert {line["against"] for line in lines} == {"", "bare product", "FAISS at its defaults"}
    assert len({line["part"] for line in lines}) == 2 * 3
