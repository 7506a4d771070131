"""The catalogue in an SQLite file: for one host, any number of threads and processes; not for network disks.

log     one row per change, numbered by AUTOINCREMENT: a number is never used twice, not even after deletes
items   the items, each with the number of its last change
words   their words, for `find`
placements   the current rules of each placement
meta    catalogue id, schema version, the largest number that compaction dropped, and the size of the log after it

Write-ahead logging with synchronous FULL: a change is on the disk when its call returns.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from index.catalogue.base import CatalogueItem, Change, Placement, PutResult, check_repeated, unknown_change
from index.catalogue.batches import batches
from index.catalogue.item_json import attributes_from_json, attributes_to_json
from index.catalogue.locks import FileLease, Lease, one_at_a_time
from index.catalogue.sqlite.connections import Connections
from index.catalogue.words import is_unicode
from seqrec.data.items import Item, attribute_text
from seqrec.errors import CatalogueError, CatalogueReplaced, ItemChanged, ItemNotFound, LogTruncated, PlacementNotFound
from seqrec.text.item_text import TokenizedItem

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    op TEXT NOT NULL, item_id TEXT, available INTEGER, snapshot_id TEXT, time REAL NOT NULL,
    attributes TEXT, item_tower TEXT, token_types BLOB, token_ids BLOB, vector BLOB
);
CREATE INDEX publications ON log (seq) WHERE op = 'publish';
CREATE TABLE items (item_id TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3');
"""
# Also made in catalogues of versions that had no placements.
_PLACEMENTS = (
    "CREATE TABLE IF NOT EXISTS placements "
    "(name TEXT PRIMARY KEY, seq INTEGER NOT NULL, rules TEXT NOT NULL) WITHOUT ROWID"
)
_ENTRY = "item_id, available, attributes, item_tower, token_types, token_ids, vector"
_MAX_WORDS = 64
_MOST_CONSIDERED = 1000  # items that a search considers, the newest ones
_IDS_AT_ONCE = 500


class SqliteCatalogue:
    """Implements `index.catalogue.base.Catalogue`. Creates the file and its directory if they are missing."""

    durability_warnings: Sequence[str] = ()

    def __init__(self, path: Path | str) -> None:
        self._connections = Connections(Path(path))
        try:
            with self._connections.writing() as connection:
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                    _create(connection)
                connection.execute(_PLACEMENTS)
                meta = dict(connection.execute("SELECT name, value FROM meta"))
            if meta.get("schema") != SCHEMA_VERSION:
                raise CatalogueError(
                    f"the catalogue {path} has schema {meta.get('schema')!r}; this version reads {SCHEMA_VERSION}. "
                    "Use the version that wrote it, or a newer one"
                )
        except BaseException:
            self._connections.close()
            raise
        self.catalogue_id: str = meta["catalogue_id"]
        self._seen = 0

    def head(self) -> int:
        seen = self._seen  # before reading: other threads may see more meanwhile
        with self._connections.use() as connection:
            # The counter of AUTOINCREMENT is right even if the newest records were compacted away.
            catalogue_id, head = connection.execute(
                "SELECT value, (SELECT seq FROM sqlite_sequence WHERE name = 'log') FROM meta "
                "WHERE name = 'catalogue_id'"
            ).fetchone()
        head = int(head or 0)
        if catalogue_id != self.catalogue_id:
            raise CatalogueReplaced(
                f"the catalogue {self._connections.path} was replaced by another one, {catalogue_id}; restart"
            )
        if head < seen:
            raise CatalogueReplaced(
                f"an older state of the catalogue {self._connections.path} was restored: it ends at change {head}, and "
                f"change {seen} was read before; restart"
            )
        self._seen = max(self._seen, head)
        return head

    def put(self, entries: Sequence[CatalogueItem], expected: Sequence[int] | None = None) -> PutResult:
        check_repeated(entries)
        if not entries:
            return PutResult(self.head(), 0, 0)
        updated = 0
        with self._connections.writing() as connection:
            for entry, seq in zip(entries, expected or (), strict=False):
                item_id = entry.item.item_id
                row = connection.execute("SELECT seq FROM items WHERE item_id = ?", (item_id,)).fetchone()
                if (row or (0,))[0] != seq:
                    raise ItemChanged(item_id)
            for entry in entries:
                updated += _forget(connection, entry.item.item_id)
                seq = _append(connection, entry)
        return PutResult(seq, len(entries) - updated, updated)

    def delete(self, item_ids: Sequence[str]) -> int:
        if not item_ids:
            return self.head()
        with self._connections.writing() as connection:
            for item_id in dict.fromkeys(item_ids):
                if not _forget(connection, item_id):
                    raise ItemNotFound(item_id)
                seq = _log(connection, "delete", item_id=item_id)
        return seq

    def publish(self, snapshot_id: str, lease: Lease | None = None) -> int:
        if lease is not None:
            lease.check()
        with self._connections.writing() as connection:
            return _log(connection, "publish", snapshot_id=snapshot_id)

    @contextmanager
    def lease(self, name: str, wait: bool = False) -> Iterator[Lease]:
        with one_at_a_time(self._connections.path.with_name(f"{name}.lock"), wait):
            yield FileLease(name)

    def publications(self) -> list[Change]:
        with self._connections.use() as connection:
            rows = connection.execute(
                "SELECT seq, snapshot_id, time FROM log WHERE op = 'publish' ORDER BY seq DESC"
            ).fetchall()
        return [Change(seq, "publish", snapshot_id=snapshot_id, time=when) for seq, snapshot_id, when in rows]

    def set_placement(self, name: str, rules: str | None) -> int:
        with self._connections.writing() as connection:
            # The columns of an item hold the placement's name and rules: the log's table is that of every version.
            seq = _log(connection, "place", item_id=name, attributes=rules)
            if rules is not None:
                connection.execute("INSERT OR REPLACE INTO placements VALUES (?, ?, ?)", (name, seq, rules))
            elif not connection.execute("DELETE FROM placements WHERE name = ?", (name,)).rowcount:
                raise PlacementNotFound(name)
        return seq

    def placements(self) -> dict[str, Placement]:
        with self._connections.use() as connection:
            rows = connection.execute("SELECT name, seq, rules FROM placements ORDER BY name").fetchall()
        return {name: Placement(seq, rules) for name, seq, rules in rows}

    def changes(self, after: int, limit: int) -> Iterator[Change]:
        with self._connections.reading() as connection:
            truncated = connection.execute("SELECT value FROM meta WHERE name = 'truncated'").fetchone()[0]
            if max(after, 0) < truncated:
                raise LogTruncated(
                    f"changes after {after} were requested, but the log was compacted through {truncated}; "
                    "start from a newer snapshot"
                )
            rows = connection.execute(
                f"SELECT seq, op, snapshot_id, time, {_ENTRY} FROM log WHERE seq > ? ORDER BY seq LIMIT ?",
                (after, limit),
            ).fetchall()
        return map(_change, rows)

    def scan(self, through: int | None = None) -> Iterator[tuple[int, CatalogueItem]]:
        with self._connections.reading() as connection:
            rows = connection.execute(
                f"SELECT items.seq, {_ENTRY.replace('item_id', 'items.item_id')} FROM items JOIN log USING (seq) "
                "WHERE items.seq <= ? ORDER BY items.item_id",
                (2**63 - 1 if through is None else through,),
            )
            for seq, *entry in rows:
                yield seq, _entry(entry)

    def get(self, item_id: str) -> tuple[int, CatalogueItem] | None:
        if not is_unicode(item_id):
            return None
        with self._connections.use() as connection:
            row = connection.execute(
                f"SELECT seq, {_ENTRY} FROM log WHERE seq = (SELECT seq FROM items WHERE item_id = ?)", (item_id,)
            ).fetchone()
        return None if row is None else (row[0], _entry(row[1:]))

    def get_many(self, item_ids: Sequence[str]) -> dict[str, tuple[int, CatalogueItem]]:
        found: dict[str, tuple[int, CatalogueItem]] = {}
        with self._connections.reading() as connection:
            for chunk in batches(filter(is_unicode, item_ids), _IDS_AT_ONCE):
                rows = connection.execute(
                    f"SELECT seq, {_ENTRY} FROM log WHERE seq IN "
                    f"(SELECT seq FROM items WHERE item_id IN ({', '.join('?' * len(chunk))}))",
                    chunk,
                )
                found |= {row[1]: (row[0], _entry(row[1:])) for row in rows}
        return found

    def ids(self) -> set[str]:
        with self._connections.use() as connection:
            return {item_id for (item_id,) in connection.execute("SELECT item_id FROM items")}

    def count(self) -> int:
        with self._connections.use() as connection:
            return int(connection.execute("SELECT count(*) FROM items").fetchone()[0])

    def find(self, words: str, limit: int) -> list[str]:
        query = _match(words)
        if not query:
            return []
        with self._connections.use() as connection:
            # Not the rank of FTS5, which counts each word in all items (60,000 with the word: 500 ms; this: 3 ms).
            rows = connection.execute(
                "SELECT item_id FROM (SELECT rowid AS seq, length(text) AS size FROM words WHERE words MATCH ? "
                "ORDER BY rowid DESC LIMIT ?) JOIN items USING (seq) ORDER BY size, item_id LIMIT ?",
                (query, _MOST_CONSIDERED, limit),
            ).fetchall()
        return [item_id for (item_id,) in rows]

    def compact(self, through: int) -> int:
        dropped = "seq <= ? AND op != 'publish' AND seq NOT IN (SELECT seq FROM items)"
        with self._connections.writing() as connection:
            newest = connection.execute(f"SELECT max(seq) FROM log WHERE {dropped}", (through,)).fetchone()[0]
            if newest is None:
                return 0
            connection.execute("UPDATE meta SET value = max(value, ?) WHERE name = 'truncated'", (newest,))
            deleted = connection.execute(f"DELETE FROM log WHERE {dropped}", (through,)).rowcount
            # Numbers are consecutive, so with these two the size of the log is known without counting it again.
            connection.execute(
                "INSERT OR REPLACE INTO meta SELECT 'compacted_size', (SELECT count(*) FROM log) UNION ALL "
                "SELECT 'compacted_head', (SELECT seq FROM sqlite_sequence WHERE name = 'log')"
            )
            return deleted

    def superseded(self) -> int:
        with self._connections.reading() as connection:
            meta = dict(connection.execute("SELECT name, value FROM meta"))
            if "compacted_size" not in meta and meta["truncated"]:  # compacted by a version that did not write it
                size = connection.execute("SELECT count(*) FROM log").fetchone()[0]
            else:
                head = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
                size = meta.get("compacted_size", 0) + (head[0] if head else 0) - meta.get("compacted_head", 0)
            needed = connection.execute(
                "SELECT (SELECT count(*) FROM items) + (SELECT count(*) FROM log WHERE op = 'publish')"
            ).fetchone()[0]
        return int(size - needed)

    def check(self) -> None:
        self._connections.check()

    def close(self) -> None:
        self._connections.close()


def _create(connection: sqlite3.Connection) -> None:
    # Not executescript, which would commit the current transaction.
    for statement in _SCHEMA.split(";\n"):
        connection.execute(statement)
    meta = {"schema": SCHEMA_VERSION, "catalogue_id": uuid.uuid4().hex, "truncated": 0}
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())


def _log(connection: sqlite3.Connection, op: str, **columns: Any) -> int:
    """Append a record; returns its number."""
    values = {"op": op, "time": time.time(), **columns}
    cursor = connection.execute(
        f"INSERT INTO log ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", tuple(values.values())
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _append(connection: sqlite3.Connection, entry: CatalogueItem) -> int:
    item, tokens, vector = entry.item, entry.tokens, entry.vector
    seq = _log(
        connection,
        "put",
        item_id=item.item_id,
        available=item.available,
        attributes=attributes_to_json(item.attributes),
        item_tower=entry.item_tower,
        token_types=None if tokens is None else np.asarray(tokens.types, np.uint8).tobytes(),
        token_ids=None if tokens is None else np.asarray(tokens.ids, "<i4").tobytes(),
        vector=None if vector is None else np.asarray(vector, "<f4").tobytes(),
    )
    connection.execute("INSERT INTO items VALUES (?, ?)", (item.item_id, seq))
    text = " ".join(attribute_text(value) for value in item.attributes.values()).replace("\0", " ")
    connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (seq, text))
    return seq


def _forget(connection: sqlite3.Connection, item_id: str) -> bool:
    """Remove an item from the present ones; False if it was not among them."""
    if not is_unicode(item_id):
        return False
    row = connection.execute("DELETE FROM items WHERE item_id = ? RETURNING seq", (item_id,)).fetchone()
    if row is None:
        return False
    connection.execute("DELETE FROM words WHERE rowid = ?", row)
    return True


def _change(row: tuple[Any, ...]) -> Change:
    seq, op, snapshot_id, when, *entry = row
    if op == "put":
        return Change(seq, op, entry[0], _entry(entry), time=when)
    if op == "place":
        return Change(seq, op, time=when, placement=entry[0], rules=entry[2])
    if op not in ("delete", "publish"):
        raise unknown_change(seq, op)
    return Change(seq, op, entry[0], snapshot_id=snapshot_id, time=when)


def _entry(row: Sequence[Any]) -> CatalogueItem:
    item_id, available, attributes, item_tower, types, ids, vector = row
    return CatalogueItem(
        item=Item(item_id, attributes_from_json(attributes), bool(available)),
        tokens=None if ids is None else TokenizedItem(np.frombuffer(ids, "<i4"), np.frombuffer(types, np.uint8)),
        vector=None if vector is None else np.frombuffer(vector, "<f4"),
        item_tower=item_tower,
    )


def _match(words: str) -> str:
    """The words as an FTS5 query; each is quoted, so that nothing in it is syntax."""
    text = "".join(c if c.isprintable() else " " for c in words)  # also control characters and lone surrogates
    quoted = ['"' + word.replace('"', '""') + '"' for word in text.split()[:_MAX_WORDS]]
    return " ".join(quoted) + "*" if quoted else ""
