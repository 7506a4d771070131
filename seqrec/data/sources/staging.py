"""Items and events of an import on disk, so that memory does not grow with them: a SQLite file beside the output.

Every filter is one statement over it. The texts of reviews never get here; of an item its finished line is kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from seqrec.data.items import Item
from seqrec.data.sources.base import Event
from seqrec.errors import InputError

Repeated = Literal["keep", "identical", "first", "last"]
CACHE_KIB = 64 * 1024

_SAME = {
    "identical": ("user_id, item_id, time", "event"),
    "first": ("user_id, item_id", "time, event"),
    "last": ("user_id, item_id", "time DESC, event DESC"),
}
"""Which events are the same one, and which of them comes first and is kept."""


@contextmanager
def staging(path: Path) -> Iterator[Staging]:
    """A new staging file, gone when the block ends. Raises InputError where the disk is full."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # What is broken off is thrown away, so nothing is journalled or synced.
        for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", f"cache_size = -{CACHE_KIB}"):
            connection.execute(f"PRAGMA {setting}")
        yield Staging(connection)
    except sqlite3.OperationalError as error:
        raise InputError(f"{path.parent}: {error}; an import needs room there for what it reads of the data") from error
    finally:
        connection.close()
        path.unlink(missing_ok=True)


class Staging:
    """Made by `staging`. Filters return how many events they took away."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._connection.execute("CREATE TABLE items (item_id TEXT UNIQUE NOT NULL, line TEXT, has_text INT)")
        self._connection.execute("CREATE TABLE events (event INTEGER PRIMARY KEY, user_id TEXT, item_id TEXT, time)")

    def add_items(self, items: Iterable[Item]) -> int:
        """How many were new: of several with one id the first stays."""
        rows = ((item.item_id, item_line(item.item_id, item.attributes), has_text(item)) for item in items)
        return self._write("INSERT OR IGNORE INTO items VALUES (?, ?, ?)", rows)

    def add_events(self, events: Iterable[Event]) -> int:
        rows = ((event.user_id, event.item_id, event.timestamp) for event in events)
        return self._write("INSERT INTO events (user_id, item_id, time) VALUES (?, ?, ?)", rows)

    def drop_repeated(self, repeated: Repeated) -> int:
        """Of events that are the same (see `_SAME`) one stays; "keep" keeps all."""
        if repeated == "keep":
            return 0
        same, best = _SAME[repeated]
        ranked = f"SELECT event, row_number() OVER (PARTITION BY {same} ORDER BY {best}) AS place FROM events"
        return self._delete(f"event IN (SELECT event FROM ({ranked}) WHERE place > 1)")

    def drop_textless(self) -> int:
        """Events of items that nothing describes, or only numbers do."""
        return self._delete("item_id NOT IN (SELECT item_id FROM items WHERE has_text)")

    def keep_core(self, user_events: int, item_events: int) -> int:
        """The largest set of events in which every user has `user_events` and every item `item_events` of them."""
        dropped = 0
        while True:
            before = dropped
            for column, least in (("user_id", user_events), ("item_id", item_events)):
                few = f"SELECT {column} FROM events GROUP BY {column} HAVING count(*) < ?"
                dropped += self._delete(f"{column} IN ({few})", least) if least > 1 else 0
            if dropped == before:
                return dropped

    def count(self, what: Literal["events", "items", "user_id", "item_id"]) -> int:
        """Of events, of items described, of users with events, of items with events."""
        counted = {"events": "count(*) FROM events", "items": "count(*) FROM items"}
        (number,) = self._connection.execute(
            f"SELECT {counted.get(what, f'count(DISTINCT {what}) FROM events')}"
        ).fetchone()
        return int(number)

    def item_lines(self, interacted_only: bool) -> Iterator[tuple[str, bool]]:
        """Lines of an items file and whether there is text in them: described items as they came, then the others."""
        where = "WHERE item_id IN (SELECT item_id FROM events)" if interacted_only else ""
        for line, text in self._connection.execute(f"SELECT line, has_text FROM items {where} ORDER BY rowid"):
            yield line, bool(text)
        unlisted = "SELECT item_id FROM events WHERE item_id NOT IN (SELECT item_id FROM items)"
        for (item_id,) in self._connection.execute(f"{unlisted} GROUP BY item_id ORDER BY min(event)"):
            yield item_line(item_id, {}), False

    def events(self) -> Iterator[tuple[str, str, int | float]]:
        """user_id, item_id, timestamp in the order in which they came."""
        yield from self._connection.execute("SELECT user_id, item_id, time FROM events ORDER BY event")

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> int:
        self._connection.execute("BEGIN")
        changed = self._connection.executemany(statement, rows).rowcount
        self._connection.execute("COMMIT")
        return max(changed, 0)

    def _delete(self, condition: str, *values: int) -> int:
        return self._connection.execute(f"DELETE FROM events WHERE {condition}", values).rowcount


def item_line(item_id: str, attributes: object) -> str:
    return json.dumps({"item_id": item_id, "attributes": attributes}, ensure_ascii=False)


def has_text(item: Item) -> bool:
    """Whether a string of it says something; numbers alone tell no item from another."""
    return any(
        value.strip() if isinstance(value, str) else any(map(str.strip, value))
        for value in item.attributes.values()
        if isinstance(value, str | tuple)
    )
