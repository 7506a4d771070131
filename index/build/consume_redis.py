"""A stream of Redis, read by a consumer group. An entry has a field `event` or `item`, with JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import redis

from index.build.consume import ANSWER_SECONDS, AT_ONCE, WAIT_SECONDS, Record, Rejected, StreamConsumer
from index.catalogue.redis.connection import check_database
from seqrec.errors import CatalogueError, InputError

CLAIM_SECONDS = 60.0
"""So long after it was delivered, an entry that was not acknowledged goes to another consumer of the group."""

Fields = dict[bytes, bytes]
T = TypeVar("T")


class RedisConsumer(StreamConsumer[tuple[str, Fields]]):
    """The source of a record: the id of its entry, and the fields. A stream that is missing is made, unless `existing`:
    then it raises CatalogueError."""

    def __init__(self, client: redis.Redis, stream: str, group: str, name: str, existing: bool = False) -> None:
        self._redis, self._stream, self._group, self._name = client, stream, group, name
        self.rejected_name = f"{stream}:rejected"
        self._own = True  # first what was delivered to this consumer before, and not acknowledged
        self._claimed = 0.0
        self._at_end = False
        if existing and not _tried(lambda: client.exists(stream)):
            raise CatalogueError(
                f"there is no stream {stream!r}; check --stream and the database, or add an entry first"
            )
        _tried(self._create)

    @property
    def at_end(self) -> bool:
        return self._at_end

    def read(self, wait: bool) -> list[Record[tuple[str, Fields]]]:
        records = _tried(lambda: self._next(wait))
        self._at_end = not records
        return records

    def lag(self) -> int | None:
        for group in _tried(lambda: self._redis.xinfo_groups(self._stream)):
            if _text(group["name"]) == self._group:
                return None if group.get("lag") is None else int(group["lag"])
        return None

    def close(self) -> None:
        self._redis.close()

    def _create(self) -> None:
        try:
            self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _next(self, wait: bool) -> list[Record[tuple[str, Fields]]]:
        if self._own:
            records = self._read("0", None)
            if records:
                return records
            self._own = False
        if time.monotonic() - self._claimed >= CLAIM_SECONDS:
            self._claimed = time.monotonic()
            left = self._redis.xautoclaim(
                self._stream, self._group, self._name, int(CLAIM_SECONDS * 1000), count=AT_ONCE
            )[1]
            if left:
                self._claimed = 0.0  # perhaps there are more
                return [_record(_text(entry_id), fields) for entry_id, fields in left]
        return self._read(">", int(WAIT_SECONDS * 1000) if wait else None)

    def _read(self, after: str, block: int | None) -> list[Record[tuple[str, Fields]]]:
        found: Any = self._redis.xreadgroup(self._group, self._name, {self._stream: after}, AT_ONCE, block)
        entries = found[0][1] if found else []
        return [_record(_text(entry_id), fields or {}) for entry_id, fields in entries]

    def _acknowledge(
        self,
        records: Sequence[Record[tuple[str, Fields]]],
        rejected: Sequence[Rejected[tuple[str, Fields]]],
    ) -> None:
        def write() -> None:
            with self._redis.pipeline(transaction=True) as pipeline:
                for record, reason in rejected:
                    entry_id, fields = record.source
                    pipeline.xadd(self.rejected_name, {**fields, b"entry": entry_id, b"reason": reason})
                if records:
                    pipeline.xack(self._stream, self._group, *(record.source[0] for record in records))
                pipeline.execute()

        _tried(write)


def _record(entry_id: str, fields: Fields) -> Record[tuple[str, Fields]]:
    sent = int(entry_id.partition("-")[0]) / 1000  # when the entry was added
    text = fields.get(b"event", fields.get(b"item"))
    kind: Literal["event", "item"] = "event" if b"event" in fields else "item"
    return Record(kind, text, f"stream {entry_id}", sent, (entry_id, fields))


def _tried(call: Callable[[], T]) -> T:
    try:
        return call()
    except redis.RedisError as error:
        raise CatalogueError(_explained(error)) from error


def _explained(error: redis.RedisError) -> str:
    text = str(error)
    if "NOAUTH" in text or "already authenticated" in text:
        return "it wants a password: redis://:PASSWORD@HOST:PORT/DB"
    if isinstance(error, redis.AuthenticationError):
        return "it rejects the user and password of the URL"
    if "WRONGTYPE" in text:
        return "the key of the stream has a value of another type; check --stream"
    if isinstance(error, redis.TimeoutError):
        return f"it does not answer within {ANSWER_SECONDS:.0f} s"
    if text.startswith(("Protocol Error", "Invalid response")):
        return f"it does not answer like a Redis ({text})"
    return text.removesuffix(".")


def connect(url: str) -> redis.Redis:
    """Raises InputError for what is no URL of a Redis."""
    try:
        check_database(url)
        return redis.Redis.from_url(url, socket_connect_timeout=ANSWER_SECONDS, socket_timeout=ANSWER_SECONDS)
    except ValueError as error:
        raise InputError(f"not redis://HOST:PORT/DB: {error}", "URL") from None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
