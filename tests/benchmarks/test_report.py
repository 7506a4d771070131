from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.tools import report as module
from benchmarks.tools.report import Line, Report, Spread, add_output, number, require
from benchmarks.tools.turns import BUSY, Turns, take_turns


@pytest.fixture
def report() -> Report:
    report = Report("encode", "2 x 64", {"items": Path("data/shop/items.jsonl"), "rounds": 3, "json": Path("a.json")})
    report.add_turns("items", Turns({"theirs": [4.0, 6.0, 5.0], "ours": [2.0, 2.0, 1.0]}), 20, "/s")
    report.add(Line("memory", "one process", 1536.4, "MB"))
    report.notes.append("20 items")
    return report


def test_a_spread_is_median_least_and_most() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])


def test_ratios_are_of_turns_side_by_side(report: Report) -> None:
    theirs, ours, _ = report.lines
    assert (theirs.value, theirs.ratio) == (4, None)
    assert ours == Line("items", "ours", 10, "/s", Spread(3, 2, 5), "theirs")


def test_the_table_says_a_part_once(report: Report) -> None:
    assert report.table().splitlines() == [
        "",
        "2 x 64",
        "",
        "                               ratio  min - max  against",
        "items   theirs           4 /s",
        "        ours            10 /s      3      2 - 5  theirs",
        "memory  one process  1,536 MB",
        "",
        "20 items",
    ]


def test_what_was_measured_is_written_with_the_machine(report: Report, tmp_path: Path) -> None:
    report.more["alike"] = {"items": 1e-7}
    report.finish(tmp_path / "out.json", None)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["benchmark"] == "encode"
    assert record["settings"] == {"items": "shop/items.jsonl", "rounds": 3}
    assert {"date", "processor", "cores", "threads", "torch"} <= record["machine"].keys()
    assert record["lines"][1]["ratio"] == {"median": 3, "least": 2, "most": 5}
    assert record["alike"] == {"items": 1e-7}
    assert record["cores_taken_by_others"] >= 0


@pytest.mark.parametrize("taken", [0.0, 2 * BUSY])
def test_a_busy_machine_is_warned_of(
    report: Report, taken: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report.others, "cores", lambda: taken)
    report.finish(None, None)
    assert ("WARNING: the machine was busy" in capsys.readouterr().err) == (taken > BUSY)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_is_drawn(report: Report, tmp_path: Path, ending: str) -> None:
    report.finish(None, tmp_path / f"out.{ending}")
    begin = (tmp_path / f"out.{ending}").read_bytes()[:8]
    assert begin.startswith(b"\x89PNG" if ending == "png" else b"<?xml")


@pytest.mark.slow
def test_without_ratios_the_values_are_drawn(tmp_path: Path) -> None:
    report = Report("startup", "seconds", {}, [Line("1,000 items", "/readyz", 2.5, "s")])
    report.finish(None, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_a_picture_that_cannot_be_drawn_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    add_output(parser)
    assert parser.parse_args(["--picture", "a.png"]).picture == Path("a.png")
    with pytest.raises(SystemExit):
        parser.parse_args(["--picture", "a.jpeg"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="--picture needs matplotlib, which is not installed: pip install"):
        parser.parse_args(["--picture", "a.png"])


def test_what_is_there_is_not_asked_for() -> None:
    require("json", "this")


def test_the_processor_is_named_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    assert module.processor()


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234567.8, "1,234,568"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.012")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_contestants_take_turns_after_a_round_that_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    turns = take_turns("items", {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert [len(seconds) for seconds in turns.seconds.values()] == [2, 2]
    assert "items: round 2 of 2" in capsys.readouterr().err
