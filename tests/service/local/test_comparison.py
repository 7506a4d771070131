"""`seqrec compare` and GET /snapshots/ID/changes: what two snapshots recommend to the same users."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import seqrec
from index.build.cli import reindex
from index.catalogue.locks import one_at_a_time
from index.snapshot.snapshot import SnapshotStore
from seqrec.checkpoint import save_checkpoint
from seqrec.errors import InputError, NotReady, SnapshotNotFound, UserNotFound
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from service import jobs
from service.local.cli import compare_command, text
from service.local.comparison import ChangedUser, Changes, compare

pytestmark = pytest.mark.slow

USER = "user"
"""Of the fixture's events."""


@pytest.fixture
def snapshots(home: Path, tmp_path: Path) -> list[str]:
    """Before and after: the second is of a coarser model, and is published."""
    save_checkpoint(tmp_path / "other", "bag_of_words", BagOfWords(BagOfWordsConfig(dim=2)))
    reindex(["--home", str(home), "--checkpoint", str(tmp_path / "other")])
    return SnapshotStore(home).list()


def test_each_snapshot_answers_as_it_would_if_it_were_served(home: Path, snapshots: list[str]) -> None:
    before, after = snapshots
    with seqrec.Recommender(home) as served, seqrec.Recommender(home, snapshot=before) as earlier:
        assert served.recommend(["desk-1"]).state["snapshot"] == after
        assert earlier.recommend(["desk-1"]).state["snapshot"] == before
        expected = [one.recommend(user_id=USER, k=4).item_ids for one in (earlier, served)]
        earlier.add([{"item_id": "desk-9", "title": "Oak desk"}])  # changes since are answered by both
        assert earlier.similar("desk-1", 1).item_ids == ["desk-9"]
        earlier.remove("desk-9")
    made = compare(home, before, after, [USER], 4)
    [changed] = made.users
    assert [changed.before, changed.after] == expected
    assert changed.before != changed.after
    assert (made.before, made.after, changed.user_id) == (before, after, USER)
    assert list(changed.history)[-1] == "lamp-1"
    assert set(made.titles) == {*changed.before, *changed.after}


def test_the_command_compares_with_what_was_published_before(
    home: Path, snapshots: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    compare_command(["--home", str(home), "--json", "--users", "3"])
    record = json.loads(capsys.readouterr().out)
    assert [record["before"], record["after"]] == snapshots
    assert [user["user_id"] for user in record["users"]] == [USER]
    compare_command(["--home", str(home)])
    printed = capsys.readouterr().out
    assert f"before: {snapshots[0]}" in printed
    assert f"user {USER}: " in printed


def test_moves_are_said() -> None:
    user = ChangedUser("u", ["h"], ["a", "b", "c"], ["b", "a", "d"])
    assert text(Changes("x", "y", [user], {"d": "Desk"})).splitlines()[3:] == [
        "user u: 2 of 3 in both",
        "   1  +1    b",
        "   2  -1    a",
        "   3  new   d             Desk",
        "      gone  c",
        "",
        "in both: 2 of 3",
    ]
    assert "nobody to compare" in text(Changes("x", "y", [], {}))


def test_what_cannot_be_compared_is_said(home: Path) -> None:
    [only] = SnapshotStore(home).list()
    with pytest.raises(InputError, match="fewer than two snapshots"):
        compare(home, None, None, 10, 10)
    with pytest.raises(SnapshotNotFound):
        compare(home, "20990101T000000-000001-abcdef", only, 10, 10)
    with pytest.raises(UserNotFound):
        compare(home, only, only, ["nobody"], 10)
    for argv in (["one"], ["--users", "0"], ["--k", "101"]):
        with pytest.raises(InputError):
            compare_command(["--home", str(home), *argv])
    with pytest.raises(NotReady, match="no snapshot id"):
        seqrec.Recommender(home, snapshot="../elsewhere")


def test_over_http(
    home: Path, snapshots: list[str], make_client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = snapshots
    client = make_client()

    def changes(**params: Any) -> Any:
        return client.get(f"/snapshots/{after}/changes", params={"since": before, "users": 1, **params})

    answer = changes(k=4)
    assert answer.status_code == 200, answer.text
    [user] = answer.json()["users"]
    [expected] = compare(home, before, after, [USER], 4).users
    assert (user["before"], user["after"]) == (expected.before, expected.after)
    assert changes(since="20990101T000000-000001-abcdef").status_code == 404
    assert changes(users=0).status_code == 422
    with one_at_a_time(home / "jobs" / "compare.lock", wait=False):
        busy = changes()
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "5")
    monkeypatch.setattr(jobs, "COMPARE_SECONDS", 0.0)
    assert changes().status_code == 504
    monkeypatch.setattr(jobs, "COMPARE_SECONDS", 120.0)
    (home / "snapshots" / before / "manifest.json").write_text("{}")
    broken = changes()
    assert (broken.status_code, "compared" in broken.json()["detail"]) == (503, True)
    assert str(home) not in broken.text
