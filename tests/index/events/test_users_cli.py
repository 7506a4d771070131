from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from index.catalogue.histories import Event
from index.catalogue.open import open_histories
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


def test_users_are_deleted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users(["delete", "ann", "nobody", "--home", str(home)])
    assert capsys.readouterr().out == "ann: 2,500 events deleted\nnobody: nothing was stored\n"
    users(["delete", "jos\u00e9", "--json", "--home", str(home)])
    assert json.loads(capsys.readouterr().out) == {"jos\u00e9": 1}
    users(["export", "--all", "--home", str(home)])
    assert capsys.readouterr().out == ""
