"""Items and events of an import in a SQLite file next to the output, so that memory does not grow with them.

Each filter is one SQL statement. The texts of reviews are not stored; of an item the finished line is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from seqrec.data.items import Item, has_visible_text
from seqrec.data.sources.base import Event
from seqrec.data.timestamps import FIRST_SECOND, LAST_SECOND, MAX_EXACT_FLOAT, UNITS
from seqrec.errors import InputError

Repeated = Literal["keep", "identical", "first", "last"]
CACHE_KIB = 64 * 1024

_SAME = {
    "identical": ("user_id, item_id, time", "event"),
    "first": ("user_id, item_id", "time, event"),
    "last": ("user_id, item_id", "time DESC, event DESC"),
}
"""The columns in which repeated events agree, and the order in which the first of them is kept."""


class TimeCounts(NamedTuple):
    units: dict[str, int]  # timestamps between 1990 and 2100, by the unit in which they are
    fractions: int
    large: int  # whole numbers beyond 2^53


@contextmanager
def staging(path: Path) -> Iterator[Staging]:
    """A new staging file, removed when the block ends. Raises InputError if the disk is full."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # The file of an interrupted import is useless, so nothing is journalled or synced.
        for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", f"cache_size = -{CACHE_KIB}"):
            connection.execute(f"PRAGMA {setting}")
        yield Staging(connection)
    except sqlite3.OperationalError as error:
        raise InputError(
            f"{path.parent}: {error}; an import needs space there for the items and events that it reads"
        ) from error
    finally:
        connection.close()
        path.unlink(missing_ok=True)


class Staging:
    """Made by `staging`. Filters return how many events they removed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.connection.execute("CREATE TABLE items (item_id TEXT UNIQUE NOT NULL, line TEXT, has_text INT)")
        self.connection.execute("CREATE TABLE events (event INTEGER PRIMARY KEY, user_id TEXT, item_id TEXT, time)")

    def add_items(self, items: Iterable[Item]) -> int:
        """Returns how many were new: of several with one id the first is kept."""
        rows = ((item.item_id, item_line(item.item_id, item.attributes), has_text(item)) for item in items)
        return self._write("INSERT OR IGNORE INTO items VALUES (?, ?, ?)", rows)

    def add_events(self, events: Iterable[Event]) -> int:
        rows = ((event.user_id, event.item_id, event.timestamp) for event in events)
        return self._write("INSERT INTO events (user_id, item_id, time) VALUES (?, ?, ?)", rows)

    def drop_repeated(self, repeated: Repeated) -> int:
        """Of repeated events (see `_SAME`) one is kept; "keep" keeps all."""
        if repeated == "keep":
            return 0
        same, best = _SAME[repeated]
        ranked = f"SELECT event, row_number() OVER (PARTITION BY {same} ORDER BY {best}) AS place FROM events"
        return self._delete(f"event IN (SELECT event FROM ({ranked}) WHERE place > 1)")

    def drop_textless(self) -> int:
        """Events of items without text: without attributes, or only with numbers."""
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
        """The number of events, of described items, of users with events, or of items with events."""
        counted = {"events": "count(*) FROM events", "items": "count(*) FROM items"}
        (number,) = self.connection.execute(
            f"SELECT {counted.get(what, f'count(DISTINCT {what}) FROM events')}"
        ).fetchone()
        return int(number)

    def count_times(self) -> TimeCounts:
        """How many events have timestamps of each unit, are fractions, or are beyond exact floats."""
        units = {unit: f"time >= {FIRST_SECOND * each} AND time < {LAST_SECOND * each}" for unit, each in UNITS.items()}
        conditions = [*units.values(), "typeof(time) = 'real'", f"abs(time) > {MAX_EXACT_FLOAT}"]
        sums = ", ".join(f"coalesce(sum({condition}), 0)" for condition in conditions)
        *found, fractions, large = self.connection.execute(f"SELECT {sums} FROM events").fetchone()
        return TimeCounts({unit: count for unit, count in zip(UNITS, found, strict=True) if count}, fractions, large)

    def to_unit(self, unit: str) -> int:
        """Converts the timestamps of coarser units to `unit`, which loses no digits. Returns how many."""
        converted = 0
        for each in UNITS.values():
            if each >= UNITS[unit]:
                continue
            changed = self.connection.execute(
                f"UPDATE events SET time = time * {UNITS[unit] // each} "
                f"WHERE time >= {FIRST_SECOND * each} AND time < {LAST_SECOND * each}"
            )
            converted += changed.rowcount
        return converted

    def item_lines(self, interacted_only: bool) -> Iterator[tuple[str, bool]]:
        """Lines of an items file and whether they have text: described items in their order, then the others."""
        where = "WHERE item_id IN (SELECT item_id FROM events)" if interacted_only else ""
        for line, text in self.connection.execute(f"SELECT line, has_text FROM items {where} ORDER BY rowid"):
            yield line, bool(text)
        unlisted = "SELECT item_id FROM events WHERE item_id NOT IN (SELECT item_id FROM items)"
        for (item_id,) in self.connection.execute(f"{unlisted} GROUP BY item_id ORDER BY min(event)"):
            yield item_line(item_id, {}), False

    def events(self) -> Iterator[tuple[str, str, int | float]]:
        """user_id, item_id, timestamp in the order in which they were added."""
        yield from self.connection.execute("SELECT user_id, item_id, time FROM events ORDER BY event")

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> int:
        self.connection.execute("BEGIN")
        changed = self.connection.executemany(statement, rows).rowcount
        self.connection.execute("COMMIT")
        return max(changed, 0)

    def _delete(self, condition: str, *values: int) -> int:
        return self.connection.execute(f"DELETE FROM events WHERE {condition}", values).rowcount


def item_line(item_id: str, attributes: object) -> str:
    return json.dumps({"item_id": item_id, "attributes": attributes}, ensure_ascii=False)


def has_text(item: Item) -> bool:
    """Whether it has a string with visible characters; numbers alone do not describe an item."""
    return any(
        has_visible_text(value) if isinstance(value, str) else any(map(has_visible_text, value))
        for value in item.attributes.values()
        if isinstance(value, str | tuple)
    )
