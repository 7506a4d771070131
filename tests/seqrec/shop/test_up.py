"""`seqrec up` and `seqrec demo` with commands that take no time; a real run is in test_tutorial.py."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqrec import cli, demo
from seqrec.data.items import read_interactions, read_items
from seqrec.errors import FileFormatError, InputError, SeqrecError
from seqrec.shop.cli import check, status, up

ITEMS = "sku,title,price\n" + "".join(f"{n},Item {n} of wood,{n}.5\n" for n in range(1, 7))
EVENTS = "sku,customer,at\n" + "".join(
    f"{1 + (u + p) % 6},u{u},{1_700_000_000 + 100 * u + p}\n" for u in range(9) for p in range(4)
)
PROJECT = """format = 1

[items]
path = "items.csv"

[items.columns]
sku = "id"
title = "text"
price = "number"

[events]
path = "events.csv"
item = "sku"
user = "customer"
time = "at"
time_format = "s"

[train]
preset = "demo"
settings = { optimizer = { max_steps = 3 } }
"""


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
            run = Path(argv[argv.index("--out") + 1])
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(bag_of_words_checkpoint, run / "checkpoint")
            (run / "run.json").write_text(json.dumps({"state": "done"}))
        elif command == "evaluate":
            Path(argv[argv.index("--markdown") + 1]).write_text("| model | NDCG@10 |\n")
        elif command == "index":
            (home / "snapshots").mkdir(exist_ok=True)
            (home / "catalogue.sqlite3").touch()

    def execv(program: str, argv: list[str]) -> None:
        raise Served(program, argv, os.environ["SEQREC_HOME"])

    monkeypatch.setattr(cli, "run", run)
    monkeypatch.setattr(os, "execv", execv)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SEQREC_PORT", str(probe.getsockname()[1]))
    return called


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a shop's files and project, which is the current directory."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "items.csv").write_text(ITEMS)
    (folder / "events.csv").write_text(EVENTS)
    (folder / "shop.toml").write_text(PROJECT)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SEQREC_HOME", "")
    return folder


def names(commands: list[list[str]]) -> list[str]:
    return [command[0] for command in commands]


def go(*argv: str) -> None:
    with pytest.raises(Served):
        up(list(argv))


def test_it_imports_trains_evaluates_indexes_and_becomes_the_server(
    commands: list[list[str]], shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEQREC_HOME")
    with pytest.raises(Served) as served:
        up([])
    assert served.value.args == (sys.executable, [sys.executable, "-m", "seqrec", "serve"], "var")
    assert names(commands) == ["train", "evaluate", "events", "index"]
    train = commands[0]
    assert train[train.index("--preset") + 1] == "demo"
    assert "optimizer.max_steps=3" in train
    assert 'text.attributes=["title"]' in train
    assert (shop / "var" / "checkpoint" / "digest").is_file()
    assert len(read_items(shop / "var" / "data" / "items.jsonl")) == 6
    assert len(read_interactions(shop / "var" / "data" / "interactions.parquet")) == 36
    assert f"http://127.0.0.1:{os.environ['SEQREC_PORT']}/recommend" in capsys.readouterr().out
    commands.clear()
    go()
    assert commands == []
    assert "| model | NDCG@10 |" in capsys.readouterr().out  # the table is shown again


def test_a_new_price_is_indexed_and_trains_nothing(commands: list[list[str]], shop: Path) -> None:
    go()
    commands.clear()
    (shop / "items.csv").write_text(ITEMS.replace(",3.5", ",4"))
    go()
    assert names(commands) == ["evaluate", "events", "index"]


@pytest.mark.slow
def test_new_events_and_texts_are_trained_on(commands: list[list[str]], shop: Path) -> None:
    go()
    for change in ("events", "texts"):
        commands.clear()
        if change == "events":
            (shop / "events.csv").write_text(EVENTS + "1,u1,1700009999\n")
        else:
            (shop / "items.csv").write_text(ITEMS.replace("Item 1 of", "Item one of"))
        go()
        assert names(commands) == ["train", "evaluate", "events", "index"]


def test_until_stops_there_and_needs_no_free_port(commands: list[list[str]], shop: Path, taken: int) -> None:
    os.environ["SEQREC_PORT"] = str(taken)
    up(["--until", "import"])
    assert commands == []
    up(["--until", "train"])
    assert names(commands) == ["train"]


def test_fresh_repeats_everything(commands: list[list[str]], shop: Path) -> None:
    go()
    commands.clear()
    go("--fresh")
    assert names(commands) == ["train", "evaluate", "events", "index"]
    assert "--overwrite" in commands[0]


def test_an_interrupted_training_is_resumed_on_the_same_data_only(
    commands: list[list[str]], shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cli.run

    def interrupted(command: str, argv: list[str]) -> None:
        out = Path(argv[argv.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_text(json.dumps({"state": "running"}))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        up([])
    monkeypatch.setattr(cli, "run", run)
    go()
    assert names(commands) == ["train", "evaluate", "events", "index"]
    assert "--overwrite" not in commands[0]
    monkeypatch.setattr(cli, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        up(["--fresh"])
    monkeypatch.setattr(cli, "run", run)
    commands.clear()
    (shop / "events.csv").write_text(EVENTS + "1,u1,1700009999\n")
    go()
    assert "--overwrite" in commands[0]


def test_a_training_that_is_broken_off_leaves_what_is_served(
    commands: list[list[str]], shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    digest = shop / "var" / "checkpoint" / "digest"
    before = digest.read_bytes()

    def interrupted(command: str, argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        up(["--fresh"])
    assert digest.read_bytes() == before


def test_data_that_teaches_nothing_is_not_trained_on(
    commands: list[list[str]], shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = [line for line in EVENTS.splitlines() if not line.startswith("sku")][::4]
    (shop / "events.csv").write_text("sku,customer,at\n" + "\n".join(once) + "\n")
    with pytest.raises(InputError, match=r"no user has 3 events or more \(the longest history has 1\)"):
        up([])
    assert commands == []
    assert "stop: no user has 3 events" in capsys.readouterr().out
    with pytest.raises(InputError, match="no user has 3 events"):
        check([])


def test_status_says_what_is_stale(
    commands: list[list[str]], shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status([])
    assert capsys.readouterr().out.count("never run") == 4
    up(["--until", "evaluate"])
    capsys.readouterr()
    status([])
    out = capsys.readouterr().out
    assert out.count("up to date") == 3
    assert "index     never run" in out
    assert "nothing is published yet" in out
    assert "| model | NDCG@10 |" in out
    (shop / "events.csv").write_text(EVENTS + "1,u1,1700009999\n")
    status([])
    out = capsys.readouterr().out
    assert "up to date" not in out
    assert out.count("stale: `seqrec up` repeats it") == 3


def test_the_time_of_the_index_is_that_of_its_snapshot_not_of_the_newest_event(
    commands: list[list[str]], shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEQREC_HOME")
    go()
    os.utime(shop / "var" / "snapshots", (1_700_000_000, 1_700_000_000))
    (shop / "var" / "catalogue.sqlite3").unlink()  # an empty one, which no status can read
    capsys.readouterr()
    status(["--json"])
    [index] = [one for one in json.loads(capsys.readouterr().out)["stages"] if one["name"] == "index"]
    assert index["made"].startswith("2023-11-14")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (
            'time_format = "s"',
            'time_format = "iso"\nzone = "Berlin"',
            r"line 17: events\.zone: 'Berlin' is not a time zone",
        ),
        ('time_format = "s"', 'time_format = "german"', r"line 16: events\.time_format: 'german' is none of"),
        ('preset = "demo"', 'preset = "nosuch"', r"line 19: train\.preset: no preset 'nosuch'"),
        ("max_steps", "max_stepz", r"line 20: train\.settings\.optimizer\.max_stepz: unknown setting"),
        ("max_steps = 3", "max_steps = 'x'", r"line 20: train\.settings\.optimizer\.max_steps: a whole number"),
    ],
)
def test_a_setting_that_is_none_is_named_with_its_line(shop: Path, before: str, after: str, reason: str) -> None:
    text = (shop / "shop.toml").read_text()
    (shop / "shop.toml").write_text(text.replace(before, after))
    with pytest.raises(FileFormatError, match=rf"shop\.toml, {reason}"):
        up(["--until", "train"])


def test_what_a_killed_run_left_is_removed(commands: list[list[str]], shop: Path) -> None:
    left = shop / "var" / ".tmp-run-0123abcd"
    left.mkdir(parents=True)
    (left / "metrics.jsonl").touch()
    go()
    assert not left.exists()


def test_without_a_project_it_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"there is no shop\.toml here; `seqrec init --items FILE"):
        up([])
    with pytest.raises(FileFormatError, match=r"nowhere\.toml: no such file; `seqrec init"):
        up(["nowhere.toml"])


def test_a_setting_of_serve_reaches_the_service_and_the_environment_wins(
    commands: list[list[str]], shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = os.environ["SEQREC_PORT"]
    (shop / "shop.toml").write_text(PROJECT + "\n[serve]\nport = 1\nmax_k = 7\n")
    go()
    assert os.environ["SEQREC_MAX_K"] == "7"
    assert os.environ["SEQREC_PORT"] == port
    monkeypatch.delenv("SEQREC_MAX_K")
    (shop / "shop.toml").write_text(PROJECT + "\n[serve]\nmax_q = 7\n")
    line = PROJECT.count("\n") + 3
    with pytest.raises(FileFormatError, match=rf"shop\.toml, line {line}: serve\.max_q: no such setting, did you mean"):
        up([])
    monkeypatch.delenv("SEQREC_MAX_Q")


def test_a_home_that_is_a_file(commands: list[list[str]], shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEQREC_HOME", raising=False)
    (shop / "shop.toml").write_text(PROJECT.replace("format = 1", 'format = 1\nhome = "items.csv"'))
    with pytest.raises(InputError, match=r"items\.csv is a file; home is the folder of what is made"):
        up([])


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_taken_port_is_reported_before_anything_is_done(
    commands: list[list[str]], shop: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQREC_PORT", str(taken))
    with pytest.raises(InputError, match=rf"SEQREC_PORT: port {taken} of 127.0.0.1 is in use .*={taken + 1}"):
        up([])
    assert commands == []
    assert not (shop / "var").exists()


@pytest.mark.parametrize("port", ["65536", "-1", "http", "80a", "8e3"])
def test_a_port_that_is_none(commands: list[list[str]], shop: Path, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQREC_PORT", port)
    with pytest.raises(InputError, match=f'SEQREC_PORT: .*"{port}"'):
        up([])


def test_a_host_that_is_none_of_this_machine(
    commands: list[list[str]], shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQREC_HOST", "192.0.2.1")  # reserved for documentation
    with pytest.raises(InputError, match=r"SEQREC_HOST: '192\.0\.2\.1' is not an address of this machine"):
        up([])


# The demo


@pytest.mark.slow
def test_the_demo_is_up_on_the_bundled_shop(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    home = tmp_path / "home" / "demo"
    with pytest.raises(Served) as served:
        demo.main([])
    assert served.value.args[2] == str(home)
    assert names(commands) == ["train", "evaluate", "events", "index"]
    assert commands[3][1:6] == ["build", "--home", str(home), "--checkpoint", str(home / "checkpoint")]
    out = capsys.readouterr().out
    assert "events: 264,510 of 264,510 rows, 4,074 users, 3,145 items" in out
    assert "20725  Lunch Bag Red Retrospot" in out


@pytest.mark.slow
def test_a_home_of_an_earlier_demo_is_taken_over(
    commands: list[list[str]], tmp_path: Path, bag_of_words_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no import: its model is trained once more, and its catalogue stays."""
    home = tmp_path / "home" / "demo"
    for name in ("checkpoint", "run/checkpoint"):
        shutil.copytree(bag_of_words_checkpoint, home / name)
    (home / "snapshots").mkdir()
    (home / "catalogue.sqlite3").write_text("as it was")
    (home / "evaluation.md").write_text("old")
    (home / "state.json").write_text(json.dumps({"train": "a", "evaluate": "b", "index": "c"}))
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    with pytest.raises(Served):
        demo.main([])
    assert names(commands) == ["train", "evaluate", "events", "index"]
    assert "--overwrite" in commands[0]
    assert (home / "catalogue.sqlite3").read_text() == "as it was"


@pytest.mark.slow
def test_the_demo_reads_what_the_files_have(commands: list[list[str]], online_retail: Path, tmp_path: Path) -> None:
    os.environ["SEQREC_HOME"] = str(tmp_path / "home")
    with pytest.raises(Served):
        demo.main([])
    data = tmp_path / "home" / "demo" / "data"
    assert read_items(data / "items.jsonl") == read_items(online_retail / "items.jsonl.gz")
    made, source = (
        read_interactions(data / "interactions.parquet"),
        read_interactions(online_retail / "interactions.csv.gz"),
    )
    assert (made.user_ids, made.item_ids) == (source.user_ids, source.item_ids)
    assert (made.timestamps == source.timestamps).all()


def test_the_demo_without_the_repository_s_data_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "DATA", tmp_path)
    with pytest.raises(
        SeqrecError, match=r"items\.jsonl\.gz does not exist: this installation is incomplete"
    ) as caught:
        demo.main([])
    assert "seqrec up" in str(caught.value)


def test_the_example_is_of_the_bundled_data(online_retail: Path) -> None:
    from seqrec.shop.project import read_project

    known: dict[str, Any] = {item.item_id: item for item in read_items(online_retail / "items.jsonl.gz")}
    example = read_project(online_retail).config.serve.example
    assert len(example) == 2
    assert all(item_id in known for item_id in example)


def test_types_of_events_and_what_users_do_not_want_reach_training_and_the_service(
    commands: list[list[str]], shop: Path
) -> None:
    typed = [line.split(",") for line in EVENTS.splitlines()]
    kinds = ["kind", *(("view", "buy", "return")[row % 3] for row in range(len(typed) - 1))]
    (shop / "events.csv").write_text("\n".join(",".join([*row, kind]) for row, kind in zip(typed, kinds, strict=True)))
    worth = """
type = "kind"

[events.types]
view = { weight = 0.3 }
return = { negative = true }
"""
    (shop / "shop.toml").write_text(PROJECT.replace('time_format = "s"\n', f'time_format = "s"{worth}'))
    go()
    assert names(commands) == ["train", "evaluate", "events", "index", "events"]
    assert commands[2] == ["events", "types", "--home", "var", "view=0.3", "return=negative", "--session-gap", "none"]
    read = read_interactions(shop / "var" / "data" / "interactions.parquet")
    assert read.weights is not None
    assert set(read.weights.tolist()) == {1.0, 307 / 1024}
    assert commands[4][:2] == ["events", "import"]
    refused = read_interactions(Path(commands[4][-1]), typed=True)
    assert set(refused.types or ()) == {"return"}
    assert len(refused) + len(read) == 36
