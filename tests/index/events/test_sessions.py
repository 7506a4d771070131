"""Sessions are the same offline, where an import merges them, and online, where events come one after the other."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from index.catalogue import histories as histories_module
from index.catalogue.base import CatalogueItem
from index.catalogue.event_types import EventType, EventTypes
from index.catalogue.histories import Event, whole_sessions
from index.catalogue.open import open_catalogue, open_histories
from index.catalogue.sqlite.histories import SqliteHistories
from index.events.cli import events as events_command
from index.events.counting import current_counts, follow, start_counts
from retraining.data import export
from seqrec.data.items import make_item, read_interactions
from seqrec.data.tables.base import Rejects, TableOptions
from seqrec.data.tables.open import open_table
from seqrec.errors import InputError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings, count
from seqrec.shop.events import read_events, weigh
from seqrec.shop.project import EventsConfig, Project, ShopConfig

SETTINGS = CooccurrenceSettings(window=4)
ITEMS = "abcdefgh"


def shop(path: Path, **events: object) -> Project:
    config = {"path": str(path), "item": "i", "user": "u", "time": "t", "time_format": "s", "type": "k", **events}
    items = {"path": "items.csv", "columns": {"i": "id"}}
    return Project(path, ShopConfig.model_validate({"format": 1, "items": items, "events": config}))


@pytest.mark.slow
@pytest.mark.parametrize("repeats", ["session", "first"])
def test_posted_events_count_and_are_read_as_in_training(repeats: str, tmp_path: Path) -> None:
    draw = random.Random(repeats)
    begin, kinds = 1_700_000_000, ("view", "view", "cart", "buy")
    rows = [
        (f"u{draw.randrange(6)}", draw.choice(ITEMS), begin + 10 * draw.randrange(600), draw.choice(kinds))
        for _ in range(700)
    ]
    rows = list({(row[0], row[2]): row for row in rows}.values())  # of equal times, the order of arrival counts
    log = tmp_path / "log.csv"
    log.write_text("u,i,t,k\n" + "".join(f"{u},{i},{t},{k}\n" for u, i, t, k in sorted(rows)))
    project = shop(log, repeats=repeats, session_gap="90s", types={"view": {"weight": 0.25}, "cart": {"weight": 0.5}})

    config: EventsConfig = project.config.events
    offline = weigh(
        read_events(open_table(str(log), TableOptions(), "events"), config, Rejects("raise"), lambda read: None),
        config,
        None,
    )
    kept, weights = offline.events, offline.weights
    assert weights is not None
    assert len(kept) < 0.8 * len(rows), "sessions repeat items"
    order = np.lexsort((kept.time, kept.user))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(kept.user))])
    number = {name: place for place, name in enumerate(sorted(kept.items))}
    of_item = np.array([number[name] for name in kept.items])
    expected = count(
        SETTINGS, of_item[kept.item[order]], offsets, len(number), event_weights=weights[order].astype(np.float64)
    )

    home = tmp_path / "home"
    events_command(["types", "--home", str(home), *project.event_types()])
    with closing(open_histories(home)) as store:
        counts = start_counts(store, SETTINGS)
        draw.shuffle(rows)  # many come late
        while rows:
            batch, rows = rows[:7], rows[7:]
            store.add([Event(u, i, float(t), None, k) for u, i, t, k in batch])
            follow(store, counts, limit=3)
        base = counts.compact()
        assert base.item_ids == sorted(kept.items)
        assert base.events.tolist() == expected.events.tolist()
        assert base.offsets.tolist() == expected.pairs.indptr.tolist()
        assert base.columns.tolist() == expected.pairs.indices.tolist()
        assert base.values.tolist() == expected.pairs.data.tolist()
        assert current_counts(store, SETTINGS).values.tolist() == base.values.tolist()
        for user, name in enumerate(kept.users):
            own = order[offsets[user] : offsets[user + 1]]
            history = [(kept.items[kept.item[row]], kept.types[kept.type[row]]) for row in own]
            assert [(e.item_id, e.type) for e in store.recent(name, 1000)] == history
            assert [(e.item_id, e.type) for e in store.recent(name, 5)] == history[-5:]

        with closing(open_catalogue(home, create=True)) as catalogue:
            catalogue.put([CatalogueItem(make_item(name, {"title": name})) for name in ITEMS])
            exported = export(catalogue, store, tmp_path)
    again = read_interactions(exported.interactions_file, typed=True)
    assert len(again) == len(kept)
    assert again.types is not None
    assert sorted(zip(again.user_ids, again.item_ids, again.timestamps.tolist(), again.types, strict=True)) == sorted(
        (kept.users[u], kept.items[i], float(t), kept.types[k])
        for u, i, t, k in zip(kept.user, kept.item, kept.time, kept.type, strict=True)
    )


def test_whole_sessions_are_read_and_no_more() -> None:
    rows = [(time, item) for time, item in zip((9, 8, 5, 4, 1, 0), "aabbca", strict=True)]

    def read(most: int, near: float | None = None) -> str:
        return "".join(item for _, item in whole_sessions(rows, lambda row: row, most, 1.5, near))

    assert [read(most) for most in range(1, 5)] == ["aa", "aabb", "aabbca", "aabbca"]
    assert [read(most, 10.0) for most in range(3)] == ["aa", "aabb", "aabbca"], (
        "the session that goes on does not count"
    )
    assert [read(most, 20.0) for most in range(2)] == ["", "aa"]


def test_of_a_robot_that_never_pauses_only_the_newest_events_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories_module, "MOST_READ", 6)
    with closing(SqliteHistories(tmp_path / "histories.sqlite3")) as store:
        store.set_types(store.types().with_gap(10.0))
        store.add([Event("robot", ITEMS[n % 8], float(n)) for n in range(40)])
        assert [event.item_id for event in store.recent("robot", 3)] == list("fgh")
        assert len(store.recent("robot", 50)) == 8, "as many as are asked for"


def test_the_gap_is_set_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    events_command(["types", "--session-gap", "30min", "view=0.5", *home])
    assert "an item counts once in a session (gap: 1800.0s)" in capsys.readouterr().out
    with closing(SqliteHistories(tmp_path / "histories.sqlite3")) as store:
        assert store.types() == EventTypes().with_types({"view": EventType("history", 0.5)}).with_gap(1800.0)
    events_command(["types", *home, "--json"])
    assert '"session_gap": "1800.0s"' in capsys.readouterr().out
    events_command(["types", "--session-gap", "none", *home])
    assert "session" not in capsys.readouterr().out
    with pytest.raises(InputError, match="neither a duration"):
        events_command(["types", "--session-gap", "1800", *home])
