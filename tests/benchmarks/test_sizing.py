"""`seqrec size`: its numbers are those of the pages, and they grow as they must."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale.sizing import NUMBERS, Load, estimate, shown, size_command, size_table
from seqrec.errors import InputError

TABLE = [Load(10**power, 1000, 20) for power in range(5, 10)]


def test_the_page_has_the_table(root: Path) -> None:
    assert size_table(TABLE) in (root / "docs" / "sizing.md").read_text(encoding="utf-8")


def test_the_page_explains_every_number(root: Path) -> None:
    page = (root / "docs" / "sizing.md").read_text(encoding="utf-8")
    for section in tomllib.loads(NUMBERS.read_text(encoding="utf-8")).values():
        for name in section:
            assert f"| `{name}` |" in page, name


def test_measured_numbers_follow_from_the_results(root: Path) -> None:
    """Each is computed from figures that docs/results/speed.md has."""
    page = (root / "docs" / "results" / "speed.md").read_text(encoding="utf-8")
    known = tomllib.loads(NUMBERS.read_text(encoding="utf-8"))["measured"]
    assert all(
        figure in page for figure in ("320 items of 44.3 tokens on average, 64 histories of 274", "0.93", "1.07")
    )
    rates = {
        (kind, precision): float(rate)
        for kind, precision, rate in re.findall(
            r"^\| Scientific \(UniSRec's\) \| (items|histories) \| ours (float32|int8) \| ([\d.]+) ", page, re.MULTILINE
        )
    }
    for precision in ("float32", "int8"):
        items, histories = rates["items", precision] * 44.3 / 2, rates["histories", precision] * 274 / 2
        assert known["item_tokens_per_core_s"][precision] == pytest.approx(items, rel=0.001)
        assert known["history_tokens_per_core_s"][precision] == pytest.approx(histories, rel=0.001)
    assert "| 1,000,000 | 8 | 221 | 259 |" in page
    assert known["search_core_s_per_number"] == pytest.approx(2 * 0.259 / 8 / 384e6, rel=0.01)


def test_more_needs_more() -> None:
    load = Load(1e5, 100, 10)
    size = estimate(load)
    assert size.search == "exact"
    assert estimate(replace(load, rps=200)).cores == pytest.approx(2 * size.cores)
    assert estimate(replace(load, history=5)).encode_core_ms == pytest.approx(size.encode_core_ms / 2)
    assert estimate(replace(load, history=1e6)).encode_core_ms == estimate(replace(load, history=1e5)).encode_core_ms
    assert estimate(replace(load, repeated=1.0)).encode_core_ms == 0
    assert estimate(replace(load, precision="float32")).cores > size.cores
    assert estimate(replace(load, items=1e7)).search == "approximate"
    large = estimate(replace(load, items=1e9))
    assert large.search == "milvus"
    assert large.milvus_machines > 1
    assert size.milvus_machines == 0
    with pytest.raises(InputError, match="float32, int8"):
        estimate(replace(load, precision="bfloat16"))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0123, "0.012"), (1.26, "1.3"), (126.0, "130"), (1e9, "1,000,000,000")]
)
def test_two_digits(value: float, text: str) -> None:
    assert shown(value) == text


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--rps", "20000", "--history", "40"]
    size_command(["--items", "1e9", *asked, "--core-hour", "0.05"])
    text = capsys.readouterr().out
    assert "| items | 1,000,000,000 |" in text
    assert "| search | milvus |" in text
    assert "cost of a million" in text
    size_command(["--items", "1e5", "1e6", *asked, "--json"])
    assert [one["items"] for one in json.loads(capsys.readouterr().out)] == [1e5, 1e6]
    with pytest.raises(InputError, match="items"):
        size_command(["--items", "0", *asked])
