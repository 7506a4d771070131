"""Users' histories in a Redis, one script a change.

users            ids of all users
events           how many events were ever added: a number for each, so that equal times stay in order
user:ID          a sorted set by time of "number item_id event_id"
items:ID         a set of all items the user had
once:ID          a set of the event ids
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from index.catalogue.histories import Event
from index.catalogue.redis.connection import RedisConnections
from index.catalogue.words import is_unicode

# ARGV: user, item, time, event id or '' in turn.
_ADD = """
local new = 0
for i = 1, #ARGV, 4 do
  local user = ARGV[i]
  if ARGV[i + 3] == '' or redis.call('SADD', KEYS[3] .. 'once:' .. user, ARGV[i + 3]) == 1 then
    local number = string.format('%016.0f', redis.call('INCR', KEYS[2]))
    redis.call('SADD', KEYS[1], user)
    redis.call('ZADD', KEYS[3] .. 'user:' .. user, ARGV[i + 2], number .. '\\n' .. ARGV[i + 1] .. '\\n' .. ARGV[i + 3])
    redis.call('SADD', KEYS[3] .. 'items:' .. user, ARGV[i + 1])
    new = new + 1
  end
end
return new
"""
_DELETE = """
local removed = redis.call('ZCARD', KEYS[3] .. 'user:' .. ARGV[1])
redis.call('UNLINK', KEYS[3] .. 'user:' .. ARGV[1], KEYS[3] .. 'items:' .. ARGV[1], KEYS[3] .. 'once:' .. ARGV[1])
redis.call('SREM', KEYS[1], ARGV[1])
return removed
"""
_USERS_AT_ONCE = 1000


class RedisHistories:
    """Meets `index.catalogue.histories.HistoryStore`."""

    def __init__(self, url: str, accept_weaker: bool = False) -> None:
        self._redis = RedisConnections(url, accept_weaker, "the histories")
        self._base = self._redis.key("histories:")
        self._keys = (f"{self._base}users", f"{self._base}events", self._base)

    @property
    def durability_warnings(self) -> Sequence[str]:
        return self._redis.durability_warnings

    def add(self, events: Sequence[Event]) -> int:
        if not events:
            return 0
        arguments: list[Any] = []
        for event in events:
            arguments += [event.user_id, event.item_id, repr(event.timestamp), event.event_id or ""]
        return int(self._write(_ADD, *arguments))

    def recent(self, user_id: str, limit: int) -> list[Event]:
        if limit < 1 or not is_unicode(user_id):
            return []
        command = ("ZRANGE", f"{self._base}user:{user_id}", -limit, -1, "WITHSCORES")
        return _events(user_id, self._redis.read(command)[0])

    def seen(self, user_id: str) -> frozenset[str]:
        if not is_unicode(user_id):
            return frozenset()
        members = self._redis.read(("SMEMBERS", f"{self._base}items:{user_id}"))[0]
        return frozenset(item_id.decode() for item_id in members)

    def delete(self, user_id: str) -> int:
        return int(self._write(_DELETE, user_id)) if is_unicode(user_id) else 0

    def scan(self) -> Iterator[Event]:
        users: set[bytes] = set()
        cursor: Any = b"0"
        while True:
            cursor, page = self._redis.read(("SSCAN", f"{self._base}users", cursor, "COUNT", _USERS_AT_ONCE))[0]
            users.update(page)
            if cursor == b"0":
                break
        for user in sorted(users):
            yield from self.recent(user.decode(), 2**62)

    def close(self) -> None:
        self._redis.close()

    def _write(self, script: str, *arguments: Any) -> Any:
        return self._redis.write("EVAL", script, len(self._keys), *self._keys, *arguments)


def _events(user_id: str, pairs: Sequence[bytes]) -> list[Event]:
    events = []
    for member, timestamp in zip(pairs[::2], pairs[1::2], strict=True):
        _, item_id, event_id = member.decode().split("\n")
        events.append(Event(user_id, item_id, float(timestamp), event_id or None))
    return events
