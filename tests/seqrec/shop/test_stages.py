"""Stages are skipped, repeated and continued as their inputs say."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from seqrec.shop.stages import Stage, run_stages


class Counted:
    """Stages a, b, c: each copies what it was made from into a file, and counts how often it ran."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.made_from = {"a": "1", "b": "1", "c": "1"}
        self.ran: list[str] = []
        self.stop_in = ""

    def stages(self) -> list[Stage]:
        return [self.stage(name) for name in self.made_from]

    def stage(self, name: str) -> Stage:
        def run() -> None:
            self.ran.append(name)
            if name == self.stop_in:
                raise KeyboardInterrupt
            (self.home / name).write_text(self.made_from[name])

        return Stage(name, f"makes {name}", lambda: self.made_from[name], (self.home / name,), run)

    def go(self, fresh: bool = False) -> list[str]:
        """What ran."""
        self.ran = []
        run_stages(self.stages(), self.home / "state.json", fresh)
        return self.ran


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


def test_a_second_run_does_nothing_again(counted: Counted, capsys: pytest.CaptureFixture[str]) -> None:
    assert counted.go() == ["a", "b", "c"]
    assert "[1/3] a: makes a\n[1/3] a: done in 0 s\n" in capsys.readouterr().out
    assert counted.go() == []
    assert "[3/3] c: up to date" in capsys.readouterr().out


def test_a_stage_made_from_something_else_is_done_again(counted: Counted) -> None:
    counted.go()
    counted.made_from["b"] = "2"
    assert counted.go() == ["b"]
    assert counted.go() == []


def test_a_stage_whose_output_is_gone_is_done_again(counted: Counted) -> None:
    counted.go()
    (counted.home / "c").unlink()
    assert counted.go() == ["c"]


def test_ctrl_c_says_where_and_the_next_run_goes_on_there(counted: Counted, capsys: pytest.CaptureFixture[str]) -> None:
    counted.stop_in = "b"
    with pytest.raises(KeyboardInterrupt):
        counted.go()
    assert "stopped in b; the next run continues there" in capsys.readouterr().err
    counted.stop_in = ""
    assert counted.go() == ["b", "c"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 3}'])
def test_a_broken_state_costs_time_not_more(counted: Counted, content: str) -> None:
    counted.go()
    (counted.home / "state.json").write_text(content)
    assert counted.go() == ["a", "b", "c"]


def test_fresh_does_all_again(counted: Counted) -> None:
    counted.go()
    assert counted.go(fresh=True) == ["a", "b", "c"]


def test_a_stage_that_always_runs(counted: Counted) -> None:
    counted.go()
    stages = [replace(stage, always=stage.name == "b") for stage in counted.stages()]
    counted.ran = []
    run_stages(stages, counted.home / "state.json")
    assert counted.ran == ["b"]


def test_too_little_disk_is_said_before_a_stage_begins(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(5_000_000))
    with pytest.raises(OSError, match=r"only 5 MB are free .* set SEQREC_HOME") as caught:
        counted.go()
    assert caught.value.errno == errno.ENOSPC
    assert counted.ran == []
