"""Broken data sets get a message that names the way out, and never a stack trace; what only looks broken works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from seqrec.cli import main

CONFIG = """
threads = 1
device = "cpu"
[text]
attributes = ["title"]
vocab_size = 300
[model]
name = "embedding_bag"
[joint]
batch_size = 4
negatives = 4
[optimizer]
max_steps = 2
[validation]
checks = 1
"""
NAMES = [f"i{number}" for number in range(6)]
TITLES = {name: f"title {name}" for name in NAMES}


def events(*rows: str) -> str:
    return "user_id,item_id,timestamp\n" + "".join(f"{row}\n" for row in rows)


def plain(users: int = 4, length: int = 5, reverse: bool = False) -> list[str]:
    rows = [f"u{user},i{(user + step) % 6},{step}" for user in range(users) for step in range(length)]
    return rows[::-1] if reverse else rows


BROKEN = {
    "one item": (
        {"i0": "a desk"},
        events(*[f"u{user},i0,{step}" for user in range(3) for step in range(4)]),
        "whole catalogue",
    ),
    "one event a user": (TITLES, events(*plain(users=5, length=1)), "use longer histories"),
    "nothing held out": (TITLES, events(*plain(users=5, length=2)), "use longer histories"),
    "duplicate rows": (TITLES, events(*plain(), plain()[3]), "--on-error skip keeps the first"),
    "no items": ({}, events(*plain()), "no items in it"),
    "no events": (TITLES, events(), "no interactions in it"),
    "an empty file": (TITLES, "", "the columns user_id, item_id, timestamp are needed"),
    "unknown items": (TITLES, events(*plain(), "u0,unicorn,9"), "'unicorn' is not in the items file (--on-error skip"),
    "no timestamp": (TITLES, events(*plain(), "u0,i5,nan"), "timestamp: nan is not a finite number (--on-error skip"),
    "no text": (dict.fromkeys(NAMES, " "), events(*plain()), "no item has text in title"),
}
ODD = {
    "one user": (TITLES, events(*plain(users=1)), ""),
    "time running backwards": (
        TITLES,
        events(*plain(reverse=True)),
        "4 of 4 users were not in order of time",
    ),
    "all targets cold": (
        TITLES,
        events(*[f"u{user},i{item},{step}" for user in range(4) for step, item in enumerate((0, 1, 4, 5))]),
        "",
    ),
}


@pytest.fixture
def program(
    tmp_path: Path, embedding_bag: type, bag_of_words_checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """(command, items, events, more options) -> exit code and everything that was said."""
    (tmp_path / "config.toml").write_text(CONFIG)

    def run(command: str, titles: dict[str, str], interactions: str, *more: str) -> tuple[int, str]:
        lines = [json.dumps({"item_id": name, "attributes": {"title": title}}) for name, title in titles.items()]
        (tmp_path / "items.jsonl").write_text("".join(f"{line}\n" for line in lines))
        (tmp_path / "events.csv").write_text(interactions)
        data = ["--items", str(tmp_path / "items.jsonl"), "--interactions", str(tmp_path / "events.csv")]
        own = {
            "train": ["--config", str(tmp_path / "config.toml"), "--out", str(tmp_path / "run")],
            "evaluate": [str(bag_of_words_checkpoint), "--resamples", "20", "--device", "cpu", "--threads", "1"],
        }[command]
        code = 0
        try:
            main([command, *data, *own, *more])
        except SystemExit as exited:
            code = int(exited.code or 0)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_data_set_is_refused_with_the_way_out(
    program: Callable[..., tuple[int, str]], command: str, name: str
) -> None:
    titles, interactions, said = BROKEN[name]
    if (command, name) == ("evaluate", "no text"):
        pytest.skip("a bag of words reads whatever there is, and needs no text")
    code, output = program(command, titles, interactions)
    assert (code, "Traceback" in output) == (1, False)
    message = output.strip().splitlines()[-1]
    assert message.startswith(f"seqrec {command}: ")
    assert said in message


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("name", ODD)
def test_an_odd_data_set_works_and_says_what_is_odd(
    program: Callable[..., tuple[int, str]], caplog: pytest.LogCaptureFixture, command: str, name: str
) -> None:
    titles, interactions, said = ODD[name]
    with caplog.at_level("INFO"):
        code, output = program(command, titles, interactions)
    assert (code, "Traceback" in output) == (0, False), output
    assert said in caplog.text
    if command == "evaluate":
        users = "1" if name == "one user" else "4"
        assert f"Warning: only {users} users are evaluated" in output
        assert ("cold targets (4 / 4 users)" in output) == (name == "all targets cold")


def test_the_order_of_the_file_changes_nothing(program: Callable[..., tuple[int, str]]) -> None:
    found = []
    for reverse in (False, True):
        _, output = program("evaluate", TITLES, events(*plain(reverse=reverse)), "--json")
        record = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
        found.append([(row["method"], row["protocol"], row["users"], round(row["ndcg"], 9)) for row in record["rows"]])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--split-by", "time", "--valid-from", "-5", "--test-from", "-1"], "nothing is left to train on"),
        (["--split-by", "time", "--valid-from", "50", "--test-from", "90"], "choose another moment or share"),
        (["--split-by", "last-basket", "--basket-gap", "99"], "no user has three baskets or more"),
        (["--split-by", "time", "--test-share", "1.5"], "data.test_share: 1.5 is not below 1"),
    ],
)
def test_a_split_that_leaves_nothing_is_refused_with_the_way_out(
    program: Callable[..., tuple[int, str]], more: list[str], said: str
) -> None:
    code, output = program("evaluate", TITLES, events(*plain()), *more)
    assert (code, "Traceback" in output) == (1, False)
    assert said in output.strip().splitlines()[-1]
