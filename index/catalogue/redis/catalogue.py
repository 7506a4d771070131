"""The catalogue in Redis (7.2 or newer, or Valkey), for any number of hosts.

A batch of changes is one script, so it is atomic; it is acknowledged once the append-only file of the server is on the
disk. The keys are described in `index.catalogue.redis.scripts`.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from index.catalogue.base import CatalogueItem, Change, Placement, PutResult, check_repeated
from index.catalogue.batches import batches
from index.catalogue.locks import Lease
from index.catalogue.redis.connection import RedisConnections
from index.catalogue.redis.lease import RedisLease, redis_lease
from index.catalogue.redis.records import body_of, change_of, entry_of, fields_of, words_of_item
from index.catalogue.redis.scripts import (
    BODIES,
    CHANGES,
    COMPACT,
    COUNT,
    DELETE,
    FIND,
    GET,
    KEYS,
    OPEN,
    PAGE,
    PLACE,
    PLACED,
    PUBLICATIONS,
    PUBLISH,
    PUT,
    READ_HEAD,
    REPLACED,
    SUPERSEDED,
)
from index.catalogue.words import is_unicode, words_of
from seqrec.errors import (
    CatalogueError,
    CatalogueReplaced,
    ItemChanged,
    ItemNotFound,
    LogTruncated,
    PlacementNotFound,
    SnapshotError,
)

SCHEMA_VERSION = "1"
_IDS_AT_ONCE = 5000
_RECORDS_AT_ONCE = 200  # so that no script blocks the server for long
_DROPPED_AT_ONCE = 1000
_MAX_WORDS = 16
_MOST_CONSIDERED = 1000  # items that a search considers
_ENDINGS = 16  # words that a prefix is expanded to


class RedisCatalogue:
    """Implements `index.catalogue.base.Catalogue`. Each call detects a replaced, emptied or older catalogue."""

    def __init__(self, url: str, create: bool = False, accept_weaker: bool = False) -> None:
        """Raises CatalogueError if there is no catalogue and not `create`; see `RedisConnections`."""
        self._redis = RedisConnections(url, accept_weaker)
        self._keys = [self._redis.key(name) for name in KEYS]
        self._lock = threading.Lock()
        try:
            self.catalogue_id, self._seen = self._open(create)
        except BaseException:
            self._redis.close()
            raise

    @property
    def durability_warnings(self) -> Sequence[str]:
        return self._redis.durability_warnings

    def head(self) -> int:
        return self._read(READ_HEAD)[0]

    def put(self, entries: Sequence[CatalogueItem], expected: Sequence[int] | None = None) -> PutResult:
        check_repeated(entries)
        if not entries:
            return PutResult(self.head(), 0, 0)
        arguments: list[bytes] = []
        for row, entry in enumerate(entries):
            seq = b"" if expected is None else str(expected[row]).encode()
            arguments += [entry.item.item_id.encode(), words_of_item(entry.item), body_of(entry), seq]
        head, updated = self._write(PUT, *arguments)
        return PutResult(head, len(entries) - updated, updated)

    def delete(self, item_ids: Sequence[str]) -> int:
        if not item_ids:
            return self.head()
        for item_id in item_ids:
            if not is_unicode(item_id):
                raise ItemNotFound(item_id)
        return self._write(DELETE, *(item_id.encode() for item_id in dict.fromkeys(item_ids)))[0]

    def publish(self, snapshot_id: str, lease: Lease | None = None) -> int:
        token = ""
        if lease is not None:
            lease.check()
            assert isinstance(lease, RedisLease)
            token = lease.token
        key = "lease" if lease is None else f"lease:{lease.name}"
        return self._write(PUBLISH, snapshot_id, token, keys=[*self._keys, self._redis.key(key)])[0]

    def lease(self, name: str, wait: bool = False) -> AbstractContextManager[Lease]:
        return redis_lease(self._redis, name, wait)

    def publications(self) -> list[Change]:
        rows = [row.decode().split(" ", 2) for row in self._read(PUBLICATIONS)[1]]
        return [Change(int(seq), "publish", snapshot_id=name, time=float(when)) for seq, when, name in reversed(rows)]

    def set_placement(self, name: str, rules: str | None) -> int:
        return self._write(PLACE, name.encode(), *(() if rules is None else (rules.encode(),)))[0]

    def placements(self) -> dict[str, Placement]:
        found = {}
        for name, stored in fields_of(self._read(PLACED)[1]).items():
            seq, _, rules = stored.decode().partition(" ")
            found[name.decode()] = Placement(int(seq), rules)
        return dict(sorted(found.items()))

    def changes(self, after: int, limit: int) -> Iterator[Change]:
        rows = self._read(CHANGES, max(after, 0), limit)[1] if limit > 0 else []
        return iter([self._change(row) for row in rows])

    def scan(self, through: int | None = None) -> Iterator[tuple[int, CatalogueItem]]:
        wanted = sorted(row for row in self._view().items() if through is None or row[1] <= through)
        for batch in batches(wanted, _RECORDS_AT_ONCE):
            bodies = self._read(BODIES, *(seq for _, seq in batch))[1]
            for (item_id, seq), body in zip(batch, bodies, strict=True):
                if body is None:
                    raise self._redis.error(f"the log was compacted while it was read (change {seq}); try again")
                yield seq, entry_of(item_id.encode(), body)

    def get(self, item_id: str) -> tuple[int, CatalogueItem] | None:
        return self.get_many([item_id]).get(item_id)

    def get_many(self, item_ids: Sequence[str]) -> dict[str, tuple[int, CatalogueItem]]:
        found: dict[str, tuple[int, CatalogueItem]] = {}
        for batch in batches(filter(is_unicode, item_ids), _RECORDS_AT_ONCE):
            for seq, item_id, body in self._read(GET, *(item_id.encode() for item_id in batch))[1]:
                found[item_id.decode()] = (int(seq), entry_of(item_id, body))
        return found

    def ids(self) -> set[str]:
        return set(self._view())

    def count(self) -> int:
        return int(self._read(COUNT)[1])

    def find(self, words: str, limit: int) -> list[str]:
        wanted = words_of(words, _MAX_WORDS)
        if not wanted or limit < 1:
            return []
        found = self._read(FIND, limit, _MOST_CONSIDERED, _ENDINGS, *(word.encode() for word in wanted))[1]
        return [item_id.decode() for item_id in found[:limit]]

    def compact(self, through: int) -> int:
        dropped = 0
        while more := int(self._read(COMPACT, through, _DROPPED_AT_ONCE)[1]):
            dropped += more
        return dropped

    def superseded(self) -> int:
        return int(self._read(SUPERSEDED)[1])

    def check(self) -> None:
        self._redis.check()

    def close(self) -> None:
        self._redis.close()

    def _open(self, create: bool) -> tuple[str, tuple[int, bytes]]:
        command = _eval(OPEN, self._keys, uuid.uuid4().hex, SCHEMA_VERSION, _new_epoch(), int(create))
        state, *reply = self._redis.write(*command) if create else self._redis.read(command)[0]
        if state == b"none":
            raise self._redis.error(
                "it does not exist; was the server emptied? `seqrec catalogue restore` restores a dump, "
                "`seqrec index build --items` creates a new one"
            )
        if state != b"ok":
            raise self._redis.error("parts of it are missing; restore the files of the server, or use another prefix")
        schema, catalogue_id, head, epoch = reply
        if schema.decode() != SCHEMA_VERSION:
            raise self._redis.error(f"it has schema {schema.decode()}; this version reads {SCHEMA_VERSION}")
        return catalogue_id.decode(), (int(head), epoch)

    def _view(self) -> dict[str, int]:
        """The number of the last change of each item, as of one moment.

        The server is read page by page. An item that changes before its page is read is missing there; its new record
        names the one it replaced.
        """
        through = self.head()
        view: dict[bytes, int] = {}
        after = 0
        while True:
            page = self._read(PAGE, after, through, _IDS_AT_ONCE)[1]
            if not page:
                break
            view |= zip(page[::2], map(int, page[1::2]), strict=True)
            after = int(page[-1])
        after = through
        while True:
            try:
                rows = self._read(REPLACED, after, _IDS_AT_ONCE)[1]
            except LogTruncated as error:
                raise self._redis.error(f"the log was compacted while it was read ({error}); try again") from error
            if not rows:
                return {item_id.decode(): seq for item_id, seq in view.items()}
            for _, item_id, before in rows:
                if 0 < int(before) <= through:
                    view[item_id] = int(before)
            after = _seq(rows[-1])

    def _change(self, row: Sequence[Any]) -> Change:
        fields = fields_of(row[1])
        if fields[b"catalogue"].decode() != self.catalogue_id:
            raise self._replaced(f"change {_seq(row)} belongs to catalogue {fields[b'catalogue'].decode()}")
        return change_of(_seq(row), fields)

    def _read(self, script: str, *arguments: Any) -> tuple[int, Any]:
        """The head, and the result of the script."""
        return self._checked(self._redis.read(_eval(script, self._keys, *self._known(), *arguments))[0])

    def _write(self, script: str, *arguments: Any, keys: Sequence[str] | None = None) -> tuple[int, Any]:
        known = (*self._known(), _new_epoch(), repr(time.time()))
        return self._checked(self._redis.write(*_eval(script, keys or self._keys, *known, *arguments)))

    def _known(self) -> tuple[str, int, bytes]:
        return (self.catalogue_id, *self._seen)

    def _checked(self, reply: Sequence[Any]) -> tuple[int, Any]:
        state = reply[0].decode()
        if state == "ok":
            head, epoch, result = int(reply[1]), *reply[2:]
            with self._lock:
                if head > self._seen[0]:
                    self._seen = (head, epoch)
            return head, result
        raise self._failure(state, reply[1].decode() if len(reply) > 1 else "")

    def _failure(self, state: str, detail: str) -> Exception:
        match state:
            case "changed":
                return ItemChanged(detail)
            case "missing":
                return ItemNotFound(detail)
            case "no placement":
                return PlacementNotFound(detail)
            case "lost":
                return SnapshotError("the lease was lost, so another process may be publishing; nothing was published")
            case "truncated":
                return LogTruncated(f"the log was compacted through {detail}; start from a newer snapshot")
            case "empty":
                return self._replaced("it was emptied")
            case "other":
                return self._replaced(f"it was replaced by another one, {detail}")
            case "behind":
                return self._replaced(
                    f"an older state of it was restored: it ends at change {detail}, and change {self._seen[0]} "
                    "was read before"
                )
            case "forked":
                return self._replaced(f"an older state of it was restored: change {self._seen[0]} has been replaced")
        return self._redis.error(f"unknown answer {state}")

    def _replaced(self, reason: str) -> CatalogueError:
        return CatalogueReplaced(f"{self._redis.error(reason)}; this was catalogue {self.catalogue_id}")


def _eval(script: str, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
    # The whole script, not its hash: a restarted server has no scripts, and sending one is quick.
    return ("EVAL", script, len(keys), *keys, *arguments)


def _new_epoch() -> str:
    return uuid.uuid4().hex[:16]


def _seq(row: Sequence[Any]) -> int:
    return int(row[0].partition(b"-")[0])
