"""`seqrec demo` with stages that take no time; the real ones have their own tests, and tests/e2e runs them together."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from seqrec import cli, demo
from seqrec.data.items import read_items
from seqrec.demo import Stage, run_stages
from seqrec.errors import InputError, SeqrecError

# Stages


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


def test_too_little_disk_is_said_before_a_stage_begins(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(5_000_000))
    with pytest.raises(OSError, match=r"only 5 MB are free .* set SEQREC_HOME") as caught:
        counted.go()
    assert caught.value.errno == errno.ENOSPC
    assert counted.ran == []


# The whole


class Served(Exception):
    """Instead of becoming the server."""


@pytest.fixture
def commands(tmp_path: Path, bag_of_words_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were called; each makes the files the real one makes."""
    called: list[list[str]] = []

    def run(command: str, argv: list[str]) -> None:
        called.append([command, *argv])
        home = Path(os.environ["SEQREC_HOME"])
        if command == "train":
            shutil.copytree(bag_of_words_checkpoint, Path(argv[argv.index("--out") + 1]) / "checkpoint")
        elif command == "evaluate":
            Path(argv[argv.index("--markdown") + 1]).write_text("| model | NDCG@10 |\n")
        elif command == "index":
            (home / "snapshots").mkdir()
            (home / "catalogue.sqlite3").touch()

    def execv(program: str, argv: list[str]) -> None:
        raise Served(program, argv, os.environ["SEQREC_HOME"])

    monkeypatch.setattr(cli, "run", run)
    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SEQREC_PORT", str(probe.getsockname()[1]))
    return called


def test_it_trains_evaluates_indexes_and_becomes_the_server(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home" / "demo"
    with pytest.raises(Served) as served:
        demo.main([])
    assert served.value.args == (sys.executable, [sys.executable, "-m", "seqrec", "serve"], str(home))
    assert [command[0] for command in commands] == ["train", "evaluate", "index"]
    assert commands[2][1:4] == ["build", "--checkpoint", str(home / "checkpoint")]
    assert (home / "checkpoint" / "digest").is_file()
    out = capsys.readouterr().out
    assert f"http://127.0.0.1:{os.environ['SEQREC_PORT']}/recommend" in out
    commands.clear()
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    with pytest.raises(Served):
        demo.main([])
    assert commands == []
    assert "| model | NDCG@10 |" in capsys.readouterr().out  # the table is shown again


def test_another_checkpoint_is_evaluated_and_indexed_again(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Served):
        demo.main([])
    commands.clear()
    home = tmp_path / "home" / "demo"
    digest = home / "checkpoint" / "digest"
    digest.write_text(digest.read_text() + "\n")
    shutil.rmtree(home / "snapshots")
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    with pytest.raises(Served):
        demo.main([])
    assert [command[0] for command in commands] == ["evaluate", "index"]


def test_a_training_that_is_broken_off_leaves_what_is_served(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Served):
        demo.main([])

    def interrupted(command: str, argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupted)
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    before = (tmp_path / "home" / "demo" / "checkpoint" / "digest").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        demo.main(["--fresh"])
    assert (tmp_path / "home" / "demo" / "checkpoint" / "digest").read_bytes() == before


def test_what_a_killed_run_left_is_removed(commands: list[list[str]], tmp_path: Path) -> None:
    left = tmp_path / "home" / "demo" / ".tmp-run-0123abcd"
    left.mkdir(parents=True)
    (left / "metrics.jsonl").touch()
    with pytest.raises(Served):
        demo.main([])
    assert not left.exists()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_taken_port_is_said_before_anything_is_done(
    commands: list[list[str]], taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQREC_PORT", str(taken))
    with pytest.raises(InputError, match=rf"SEQREC_PORT: port {taken} of .* is in use .*SEQREC_PORT={taken + 1}"):
        demo.main([])
    assert commands == []
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "80a", "8e3"])
def test_a_port_that_is_none(commands: list[list[str]], port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQREC_PORT", port)
    with pytest.raises(InputError, match=f"SEQREC_PORT: '{port}' is not a port; set a number from 1 to 65535"):
        demo.main([])


def test_a_host_that_is_none_of_this_machine(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQREC_HOST", "192.0.2.1")  # reserved for documentation
    with pytest.raises(InputError, match=r"SEQREC_HOST: '192\.0\.2\.1' is not an address of this machine"):
        demo.main([])


def test_a_home_that_is_a_file_is_named(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").touch()
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "plain"))
    with pytest.raises(InputError, match=r"plain/demo cannot be created, since .*plain is a file"):
        demo.main([])
    assert commands == []


def test_without_the_repository_s_data_it_says_what_to_do(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "DATA", tmp_path)
    with pytest.raises(SeqrecError, match=r"items\.jsonl\.gz does not exist: the demo needs a clone") as caught:
        demo.main([])
    assert "seqrec index build --publish" in str(caught.value)


def test_the_example_is_of_the_bundled_data(online_retail: Path) -> None:
    titles: dict[str, Any] = {
        item.item_id: item.attributes["title"] for item in read_items(online_retail / "items.jsonl.gz")
    }
    assert {item_id: titles[item_id] for item_id in demo.EXAMPLE} == demo.EXAMPLE
