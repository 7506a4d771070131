"""`seqrec bench rules`, as small as can be: what it measures is for a quiet machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import rules


@pytest.mark.slow
def test_rules_are_compared_with_bare_requests(tmp_path: Path) -> None:
    rules.main(["--sizes", "400", "--requests", "4", "--json", str(tmp_path / "out.json")])
    lines = json.loads((tmp_path / "out.json").read_text())["lines"]
    assert [(line["name"], line["against"]) for line in lines] == [("bare", ""), ("with rules", "bare")] * 2
