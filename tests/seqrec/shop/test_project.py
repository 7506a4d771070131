"""shop.toml: what is wrong is named with its line and key; defaults of the other commands come from it."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path

import pytest

from seqrec import cli
from seqrec.errors import FileFormatError
from seqrec.shop.project import find_project, read_project, toml_string, toml_value

GOOD = """format = 1

[items]
path = "items.csv"

[items.columns]
sku = "id"
title = "text"
"Preis in €" = { as = "number", decimal = "," }
tags = { as = "list", separator = "|" }

[events]
path = "events.csv"
item = "sku"
user = "customer"
time = "at"
time_format = "iso"
session_gap = "45min"

[events.types]
view = { history = true, weight = 0.5 }
"return to us" = { negative = true }

[train.settings.optimizer]
max_steps = 7

[retrain]
every = "24h"
"""


def write(folder: Path, text: str) -> Path:
    (folder / "shop.toml").write_text(text, encoding="utf-8")
    return folder / "shop.toml"


def test_a_whole_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = read_project(write(tmp_path, GOOD))
    items, events = project.config.items, project.config.events
    assert items.id == "sku"
    assert items.texts == ("title", "tags")
    assert items.columns["Preis in €"].decimal == ","
    assert events.session_gap == 45 * 60
    assert events.types["view"].counts
    assert not events.types["return to us"].counts
    assert project.config.retrain.every == 86_400
    assert project.training() == ("", ["optimizer.max_steps=7", 'text.attributes=["title", "tags"]'])
    assert project.home == tmp_path / "var"
    monkeypatch.chdir(tmp_path)
    found = find_project()
    assert found is not None
    assert found.home == Path("var")
    monkeypatch.setenv("SEQREC_HOME", "elsewhere")
    assert found.home == Path("elsewhere")
    assert found.items == Path("elsewhere/data/items.jsonl")


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("format = 1", "format = 2", 1, "format is 2; this version of seqrec reads format = 1"),
        ('title = "text"', 'title = "txt"', 8, "items.columns.title.*'id', 'text', 'list'.*'txt'"),
        ('sku = "id"', 'sku = "text"', 3, 'items: exactly one column is "id", not 0: none'),
        ('title = "text"', 'title = "id"', 3, 'items: exactly one column is "id", not 2: sku, title'),
        ('user = "customer"', 'usr = "customer"', 15, "events.usr: no such setting, did you mean 'user'"),
        ("{ history = true, weight = 0.5 }", "3", 21, r"events.types.view: a table such as \{ weight = 0.5 \}"),
        ('item = "sku"\n', "", 12, "events.item: this setting is missing"),
        (
            '"45min"',
            '"45 bananas"',
            18,
            """session_gap: '45 bananas' is not a duration, such as "30min", "24h" or "7d\"""",
        ),
        ("weight = 0.5", "weight = -1", 21, "events.types.view.weight: .*greater than or equal to 0, not '-1'"),
        ("path = ", "path ", 4, "not TOML"),
        ('path = "items.csv"', "path = 3", 4, "items.path: .*valid string, not '3'"),
        ('user = "customer"\n', "", 12, "events: user or session is needed"),
        ('decimal = ","', 'decimal = ";"', 9, "decimal.*not ';'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, line: int, reason: str) -> None:
    assert old in GOOD
    with pytest.raises(FileFormatError, match=reason) as caught:
        read_project(write(tmp_path, GOOD.replace(old, new)))
    assert caught.value.line == line


@pytest.mark.parametrize("text", ['a "b" \\ c', "tab\there", "zeile\nzwei", "é ☃", "\x00\x1f", "😀"])
def test_strings_survive_toml(text: str) -> None:
    assert tomllib.loads(f"x = {toml_string(text)}") == {"x": text}
    assert tomllib.loads(f"x = {toml_value([text, 1, True, 0.5])}") == {"x": [text, 1, True, 0.5]}


def test_settings_of_serve_become_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQREC_PORT", "9")
    monkeypatch.setenv("SEQREC_HOST", "")
    monkeypatch.delenv("SEQREC_HOST")
    serve = "\n[serve]\nport = 8\nhost = '::1'\naccept_weaker = true\n"
    project = read_project(write(tmp_path, GOOD + serve))
    before = dict(os.environ)
    try:
        project.set_environment()
        assert os.environ["SEQREC_PORT"] == "9"
        assert os.environ["SEQREC_HOST"] == "::1"
        assert os.environ["SEQREC_ACCEPT_WEAKER"] == "true"
        assert os.environ["SEQREC_RETRAIN_EVERY"] == "86400s"
        assert os.environ["SEQREC_HOME"] == str(tmp_path / "var")
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.parametrize("command", ["catalogue", "consume", "keys", "placements", "retrain", "serve", "sync", "users"])
def test_every_command_on_a_home_uses_that_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    write(tmp_path, GOOD.replace("format = 1", 'format = 1\nhome = "here"'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEQREC_HOME", raising=False)
    homes = []
    monkeypatch.setattr("seqrec.cli.run", lambda command, argv: homes.append(os.environ["SEQREC_HOME"]))
    before = dict(os.environ)
    try:
        cli.main([command])
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert homes == ["here"]


def test_other_commands_take_their_paths_from_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.config.arguments import add_data, add_run

    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    add_data(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "required: --items, --interactions" in capsys.readouterr().err
    write(tmp_path, GOOD)
    parser = argparse.ArgumentParser()
    add_data(parser)
    add_run(parser, required=False)
    arguments = parser.parse_args([])
    assert arguments.items == Path("var/data/items.jsonl")
    assert arguments.interactions == Path("var/data/interactions.parquet")
    assert (arguments.on_error, arguments.out) == ("skip", Path("var/run"))
    assert parser.parse_args(["--items", "mine.jsonl"]).items == Path("mine.jsonl")


def test_a_broken_project_is_reported_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD.replace("[events]", "[event]"))
    for command in ("serve", "train", "evaluate", "up", "check", "status"):
        with pytest.raises(SystemExit) as caught:
            cli.main([command])
        assert caught.value.code == 1
        assert f"seqrec {command}: shop.toml, line 12: event: no such setting" in capsys.readouterr().err
