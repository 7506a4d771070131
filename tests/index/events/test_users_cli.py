from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from index.catalogue.histories import Event
from index.catalogue.open import open_histories
from index.catalogue.outcomes import Attribution, Slot
from index.events.users_cli import users
from seqrec.errors import InputError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with closing(open_histories(tmp_path)) as store:
        store.add([Event("ann", f"i{n}", float(n), f"e{n}", "view", n / 2) for n in range(2500)])
        store.add([Event("jos\u00e9", "a", 1.0)])
    return tmp_path


def test_users_are_exported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users(["export", "jose\u0301", "--home", str(home)])
    line = '{"user_id": "jos\u00e9", "item_id": "a", "timestamp": 1.0}'
    assert capsys.readouterr().out == line + "\n"
    users(["export", "ann", "nobody", "--home", str(home)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["item_id"] for line in lines] == [f"i{n}" for n in range(2500)]
    assert lines[7] == {
        "user_id": "ann", "item_id": "i7", "timestamp": 7.0, "event_id": "e7", "type": "view", "value": 3.5
    }  # fmt: skip
    users(["export", "--all", "--home", str(home)])
    assert len(capsys.readouterr().out.splitlines()) == 2501
    for argv in (["export"], ["export", "ann", "--all"], ["export", " ann"]):
        with pytest.raises(InputError):
            users([*argv, "--home", str(home)])


def test_outcomes_are_exported_with_their_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = Attribution(bytes(range(12)), Slot("home", 2, "prices", "a", "m", "s"), 3, "model", True)
    with closing(open_histories(tmp_path)) as store:
        store.add(
            [Event("ann", "i", 1.0, None, "clicked", None, of), Event("ann", "i", 2.0, None, "clicked", None, of)]
        )
    exported = {
        "recommendation": "000102030405060708090a0b", "placement": "home", "version": 2, "experiment": "prices",
        "variant": "a", "model": "m", "snapshot": "s", "position": 3, "source": "model", "cold": True,
    }  # fmt: skip
    for argv in (["ann"], ["--all"]):
        users(["export", *argv, "--home", str(tmp_path)])
        first, again = map(json.loads, capsys.readouterr().out.splitlines())
        assert first["attribution"] == exported
        assert "attribution" not in again, "it counts once"


def test_users_are_deleted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users(["delete", "ann", "nobody", "--home", str(home)])
    assert capsys.readouterr().out == "ann: 2,500 events deleted\nnobody: nothing was stored\n"
    users(["delete", "jos\u00e9", "--json", "--home", str(home)])
    assert json.loads(capsys.readouterr().out) == {"jos\u00e9": 1}
    users(["export", "--all", "--home", str(home)])
    assert capsys.readouterr().out == ""
