"""What is read of a user's stored history: bounded, however many events there are."""

from __future__ import annotations

from pathlib import Path

from index.catalogue.histories import make_event
from index.catalogue.sqlite.histories import SqliteHistories
from seqrec.errors import CatalogueError
from service.engine.user_history import load_histories


def test_the_newest_events_are_the_history_and_more_of_them_are_seen(tmp_path: Path) -> None:
    store = SqliteHistories(tmp_path / "histories.sqlite3")
    store.add([make_event("u", f"item-{n}", n) for n in range(100)])
    store.add([make_event("v", "item-1", 1)])
    loaded = load_histories(store, ["u", "v", "u", "nobody"], 5, 20)
    assert list(loaded) == ["u", "v", "nobody"]
    assert loaded["u"].recent == [f"item-{n}" for n in range(95, 100)]
    assert set(loaded["u"].seen) == {f"item-{n}" for n in range(80, 100)}
    assert (list(loaded["v"].recent), set(loaded["v"].seen)) == (["item-1"], {"item-1"})
    assert not loaded["nobody"].recent
    store.close()


def test_a_store_that_cannot_be_read_leaves_an_empty_history_and_a_reason() -> None:
    class Broken:
        def recent(self, user_id: str, limit: int) -> list[object]:
            raise CatalogueError("disk on fire")

    loaded = load_histories(Broken(), ["u"], 5, 20)  # type: ignore[arg-type]
    assert loaded["u"].recent == ()
    assert loaded["u"].degraded == ["the user's stored history cannot be read: disk on fire"]
    assert load_histories(Broken(), ["u"], 5, 20, "away")["u"].degraded[0].endswith("away")  # type: ignore[arg-type]
