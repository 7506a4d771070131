"""Users' events in Redis, one script per change. `index.catalogue.redis.event_scripts` describes the keys."""

from __future__ import annotations

import re
import secrets
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

from index.catalogue.batches import batches
from index.catalogue.event_types import EventType, EventTypes, Kind
from index.catalogue.histories import NEVER, ChangesBuilder, Event, EventDays, StoredEvent, merged_history
from index.catalogue.outcomes import CountsRow, Dimension, Trial
from index.catalogue.redis.connection import RedisConnections
from index.catalogue.redis.event_scripts import (
    ADD,
    CHANGES,
    COMPACT,
    DAYS,
    DELETE,
    FORGET,
    FORGET_OF_USER,
    HEAD,
    OPEN,
    REMOVE,
    RENAME_USER,
    SET_TYPES,
)
from index.catalogue.redis.outcome_records import attribution_of_record, attribution_record, counts_rows, trial_row
from index.catalogue.words import is_unicode
from seqrec.data.items import former_user_id
from seqrec.errors import CatalogueError, CatalogueReplaced, LogTruncated
from seqrec.hybrid.event_counts import EventChanges

SCHEMA_VERSION = "4"
_USERS_AT_ONCE = 1000
_COUNTED_AT_ONCE = 200  # users whose events one script reads
_CHANGES_AT_ONCE = 1000  # numbers of the log that one script reads, which blocks the server for about 20 ms
_FORGOTTEN_AT_ONCE = 10_000
_EVERYTHING = 2**52

_Row = tuple[float, int, str, int, str]  # timestamp, number, item, number of the removal, type


class RedisHistories:
    """Implements `index.catalogue.histories.HistoryStore`."""

    def __init__(self, url: str, accept_weaker: bool = False) -> None:
        self._redis = RedisConnections(url, accept_weaker, "the histories")
        self._base = self._redis.key("histories:")
        self._keys = (*(f"{self._base}{name}" for name in ("meta", "events", "log", "users")), self._base)
        self._seen = 0
        try:
            if not self._redis.read(("EXISTS", self._keys[0]))[0]:
                self._rename_users()
            new = uuid.uuid4().hex, secrets.token_hex(32)
            schema, log_id, head, *secret = self._redis.write(
                *self._eval(OPEN, SCHEMA_VERSION, *new, *_fields(EventTypes()))
            )
            if schema.decode() != SCHEMA_VERSION:
                raise self._redis.error(f"they have schema {schema.decode()}; this version reads {SCHEMA_VERSION}")
        except BaseException:
            self._redis.close()
            raise
        self.log_id: str = log_id.decode()
        self.secret = bytes.fromhex(secret[0].decode())
        self._seen = int(head)

    @property
    def durability_warnings(self) -> Sequence[str]:
        return self._redis.durability_warnings

    def add(self, events: Sequence[Event]) -> int:
        if not events:
            return 0
        arguments: list[Any] = []
        for event in events:
            value = "" if event.value is None else repr(event.value)
            arguments += [event.user_id, event.item_id, repr(event.timestamp), event.event_id or "", event.type, value]
            arguments.append(attribution_record(event.attribution))
        return int(self._write(ADD, *arguments))

    def types(self) -> EventTypes:
        return _types(*self._redis.read(*self._types_commands))

    @property
    def _types_commands(self) -> tuple[tuple[str, ...], ...]:
        return ("HGETALL", f"{self._base}types"), ("HGET", self._keys[0], "session_gap")

    def set_types(self, types: EventTypes) -> None:
        self.compact_events(self.events_head())
        self._write(SET_TYPES, "" if types.session_gap is None else repr(types.session_gap), *_fields(types))

    def recent(self, user_id: str, limit: int) -> list[Event]:
        if limit < 1 or not is_unicode(user_id):
            return []
        key = f"{self._base}user:{user_id}"
        newest, *fields = self._redis.read(("ZRANGE", key, -limit, -1, "WITHSCORES"), *self._types_commands)
        types, first = _types(*fields), _events(user_id, newest, attributed=False)[::-1]
        history = self._history(user_id, first, limit, types)
        if types.session_gap is not None:
            return merged_history(history, limit, types)
        return list(islice(history, limit))[::-1]

    def _history(self, user_id: str, page: list[StoredEvent], limit: int, types: EventTypes) -> Iterator[Event]:
        """The user's events that make history, newest first, read on page by page."""
        while True:
            for _, event in page:
                if types.of(event.type).kind == "history":
                    yield event if event.attribution is None else replace(event, attribution=None)
            if len(page) < limit:
                return
            page = self.stored(user_id, limit, (page[-1].event.timestamp, page[-1].number))

    def negative(self, user_id: str) -> frozenset[str]:
        names = self.types().negative if is_unicode(user_id) else ()
        keys = [f"{self._base}typed:{name}\n{user_id}" for name in names]
        found = self._redis.read(*(("HKEYS", key) for key in keys)) if keys else []
        return frozenset(item_id.decode() for own in found for item_id in own)

    def stored(self, user_id: str, limit: int, before: tuple[float, int] | None = None) -> list[StoredEvent]:
        if limit < 1 or not is_unicode(user_id):
            return []
        key, newest = f"{self._base}user:{user_id}", "+inf" if before is None else repr(before[0])
        found: list[StoredEvent] = []
        read, size = 0, limit
        while len(found) < limit and size == limit:
            command = ("ZREVRANGEBYSCORE", key, newest, "-inf", "WITHSCORES", "LIMIT", read, limit)
            page = _events(user_id, self._redis.read(command)[0])
            read, size = read + len(page), len(page)
            found += [one for one in page if before is None or (one.event.timestamp, one.number) < before]
        return found[:limit]

    def delete(self, user_id: str) -> int:
        return int(self._write(DELETE, user_id)) if is_unicode(user_id) else 0

    def remove(self, user_id: str, event_id: str) -> bool:
        return is_unicode(user_id) and is_unicode(event_id) and self._write(REMOVE, user_id, event_id) == 1

    def sample(self, limit: int) -> list[str]:
        return [user.decode() for user in self._redis.read(("SRANDMEMBER", f"{self._base}users", max(limit, 0)))[0]]

    def beginning(self, prefix: str, limit: int) -> list[str]:
        """Reads users until there are enough."""
        if limit < 1 or not is_unicode(prefix):
            return []
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        found: set[bytes] = set()
        for user in self._each_user(pattern):
            found.add(user)
            if len(found) >= limit:
                break
        return sorted(user.decode() for user in found)

    def days(self, item_id: str | None = None) -> EventDays:
        """Users are read one after the other."""
        if item_id is not None and not is_unicode(item_id):
            return EventDays(0, [])
        users, counts = 0, Counter[tuple[int, str]]()
        for some in batches(sorted(self._users()), _COUNTED_AT_ONCE):
            own, *pairs = self._redis.read(self._eval(DAYS, item_id or "", *some))[0]
            users += int(own)
            for key, count in zip(pairs[::2], pairs[1::2], strict=True):
                day, _, type = key.decode().partition("\n")
                counts[int(day), type] += int(count)
        return EventDays(users, [(*key, counts[key]) for key in sorted(counts)])

    def scan(self) -> Iterator[Event]:
        for user in sorted(self._users()):
            pairs = self._redis.read(("ZRANGE", self._base.encode() + b"user:" + user, 0, -1, "WITHSCORES"))[0]
            yield from (event for _, event in _events(user.decode(), pairs))

    def events_head(self) -> int:
        self._read(HEAD)
        return self._seen

    def event_changes(self, after: int, limit: int, window: int) -> EventChanges:
        limit = min(limit, _CHANGES_AT_ONCE)
        seq, slices, *types = self._read(CHANGES, max(after, 0), limit, window, seen=max(after, self._seen))
        builder = ChangesBuilder(after, int(seq), _types(*types))
        for there, removed, *around in slices:
            rows = sorted([*_rows(there), *_removed_rows(removed), *(row for part in around for row in _rows(part))])
            _append(builder, rows)
        return builder.changes()

    def event_sequences(self) -> EventChanges:
        """Users are read one after the other; those that change meanwhile are corrected from the log."""
        head = self.events_head()
        sequences: list[list[_Row]] = []
        users = sorted(self._users())
        for at in range(0, len(users), _USERS_AT_ONCE):
            some = users[at : at + _USERS_AT_ONCE]
            keys = [self._base.encode() + b"user:" + user for user in some]
            replies = self._redis.read(*(("ZRANGE", key, 0, -1, "WITHSCORES") for key in keys))
            sequences += [_rows(reply) for reply in replies]
        _, slices, *types = self._read(CHANGES, head, _EVERYTHING, 0)
        _correct(sequences, [[*_rows(there), *_removed_rows(gone)] for there, gone, *_ in slices if gone], head)
        builder = ChangesBuilder(0, head, _types(*types))
        for rows in sequences:
            _append(
                builder, [(timestamp, number, item_id, NEVER, type) for timestamp, number, item_id, _, type in rows]
            )
        return builder.changes()

    def compact_events(self, through: int) -> None:
        reached = -1
        while (now := int(self._write(COMPACT, through, _FORGOTTEN_AT_ONCE))) > reached:
            reached = now

    def outcomes(self, by: Dimension, since: int, until: int) -> list[CountsRow]:
        days = [int(day) for day in self._redis.read(("SMEMBERS", f"{self._base}days"))[0]]
        wanted = [f"{self._base}counts:{day}" for day in days if since <= day <= until]
        return counts_rows(self._redis.read(*(("HGETALL", key) for key in wanted)) if wanted else (), by)

    def trials(self) -> list[Trial]:
        names = sorted(name.decode() for name in self._redis.read(("HKEYS", f"{self._base}trials"))[0])
        read = self._redis.read(*(("HGETALL", f"{self._base}trial:{name}") for name in names)) if names else []
        rows = [trial_row(name, pairs) for name, pairs in zip(names, read, strict=True)]
        return [row for row in rows if row.moments.users > 0]

    def forget_outcomes(self, before: int) -> int:
        self._write(FORGET, before)
        return sum(int(self._write(FORGET_OF_USER, before, user)) for user in sorted(self._users()))

    def check(self) -> None:
        self._redis.check()

    def close(self) -> None:
        self._redis.close()

    def _rename_users(self) -> None:
        """Rename users from before user ids were normalised, whose old ids are no longer accepted."""
        for user in self._users():
            if (now := former_user_id(user.decode())) != user.decode():
                self._redis.write(*self._eval(RENAME_USER, user, now))

    def _users(self) -> set[bytes]:
        return set(self._each_user())

    def _each_user(self, pattern: str = "*") -> Iterator[bytes]:
        """Each at least once; one that is added meanwhile perhaps not."""
        cursor: Any = b"0"
        while True:
            command = ("SSCAN", f"{self._base}users", cursor, "MATCH", pattern, "COUNT", _USERS_AT_ONCE)
            cursor, page = self._redis.read(command)[0]
            yield from page
            if cursor == b"0":
                return

    def _eval(self, script: str, *arguments: Any) -> tuple[Any, ...]:
        return ("EVAL", script, len(self._keys), *self._keys, *arguments)

    def _read(self, script: str, *arguments: Any, seen: int | None = None) -> Any:
        """`seen`: a number of the log that is known to exist, by default the last one seen here."""
        seen = self._seen if seen is None else seen
        return self._checked(self._redis.read(self._eval(script, self.log_id, seen, *arguments))[0], seen)

    def _write(self, script: str, *arguments: Any) -> Any:
        seen = self._seen
        return self._checked(self._redis.write(*self._eval(script, self.log_id, seen, *arguments)), seen)

    def _checked(self, reply: Sequence[Any], seen: int) -> Any:
        state, *rest = reply
        match state:
            case b"ok":
                self._seen = max(self._seen, int(rest[0]))
                return rest[1]
            case b"truncated":
                raise LogTruncated(
                    f"the log of events was compacted through {rest[0].decode()}; count again from the start"
                )
            case b"empty":
                raise self._replaced("they were emptied")
            case b"other":
                raise self._replaced(f"they were replaced by others, log {rest[0].decode()}")
        raise self._replaced(f"an older state of them was restored: they are at {rest[0].decode()}, and were at {seen}")

    def _replaced(self, reason: str) -> CatalogueError:
        return CatalogueReplaced(f"{self._redis.error(reason)}; this was log {self.log_id}; restart")


def _correct(sequences: list[list[_Row]], moved: Sequence[list[_Row]], head: int) -> None:
    """Restore the state as of `head` for users with later removals, from their complete sequences `moved`."""
    place: dict[int, int] = {}
    if moved:
        place = {number: at for at, rows in enumerate(sequences) for _, number, *_ in rows}
    for rows in moved:
        then = sorted(row for row in rows if row[1] <= head < row[3])
        at = next((place[number] for _, number, *_ in then if number in place), None)
        if at is None:
            sequences.append(then)
        else:
            sequences[at] = then


def _append(builder: ChangesBuilder, rows: Sequence[_Row]) -> None:
    for timestamp, number, item_id, removed, type in rows:
        builder.event(number, item_id, timestamp, removed, type)
    builder.end_slice()


def _rows(pairs: Sequence[bytes]) -> list[_Row]:
    rows: list[_Row] = []
    for member, timestamp in zip(pairs[::2], pairs[1::2], strict=True):
        number, item_id, _, *typed = member.decode().split("\n")
        rows.append((float(timestamp), int(number), item_id, NEVER, typed[0] if typed else ""))
    return rows


def _removed_rows(pairs: Sequence[bytes]) -> list[_Row]:
    rows: list[_Row] = []
    for member, timestamp in zip(pairs[::2], pairs[1::2], strict=True):
        number, item_id, *typed, removed = member.decode().split("\n")
        rows.append((float(timestamp), int(number), item_id, int(removed), typed[0] if typed else ""))
    return rows


def _events(user_id: str, pairs: Sequence[bytes], attributed: bool = True) -> list[StoredEvent]:
    events = []
    for member, timestamp in zip(pairs[::2], pairs[1::2], strict=True):
        number, item_id, event_id, *typed = member.decode().split("\n")
        type, value = typed[:2] or ("", "")
        of = attribution_of_record(typed[2]) if attributed and len(typed) > 2 else None
        event = Event(user_id, item_id, float(timestamp), event_id or None, type, float(value) if value else None, of)
        events.append(StoredEvent(int(number), event))
    return events


def _fields(types: EventTypes) -> list[str]:
    return [part for name, one in types.by_name.items() for part in (name, f"{one.kind} {one.weight!r}")]


def _types(fields: Sequence[bytes], gap: bytes | None = None) -> EventTypes:
    found: dict[str, EventType] = {}
    for name, text in zip(fields[::2], fields[1::2], strict=True):
        kind, _, weight = text.decode().partition(" ")
        found[name.decode()] = EventType(cast(Kind, kind), float(weight))
    return EventTypes(found, None if gap is None else float(gap))
