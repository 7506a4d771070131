"""API keys in Redis, for any number of hosts.

keys            a hash: name -> the key as JSON
keys:version    raised by each change
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from index.catalogue.redis.connection import RedisConnections
from index.keys.base import ApiKey, check_free, unknown_name
from seqrec.errors import InputError

# Stores ARGV[2] under the name ARGV[1], unless what is there has changed from ARGV[3] ("" for nothing).
_STORE = """
local old = redis.call('HGET', KEYS[1], ARGV[1])
if (old or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('INCR', KEYS[2])
return 1
"""
_ATTEMPTS = 10
_FIELDS = frozenset(field.name for field in fields(ApiKey))


class RedisKeys:
    """Implements `index.keys.base.KeyStore`."""

    def __init__(self, url: str, accept_weaker: bool = False) -> None:
        self._redis = RedisConnections(url, accept_weaker, "the API keys")
        self._hash, self._version = self._redis.key("keys"), self._redis.key("keys:version")

    def add(self, key: ApiKey) -> None:
        for _ in range(_ATTEMPTS):
            old = self._get(key.name)
            check_free(_key(old) if old else None)
            if self._store(_record(key), key.name, old):
                return
        raise InputError(f"the key {key.name!r} is being changed by others; try again", "name")

    def revoke(self, name: str, when: float) -> ApiKey:
        for _ in range(_ATTEMPTS):
            old = self._get(name)
            if old is None:
                raise unknown_name(name)
            key = _key(old)
            if key.revoked is not None:
                return key
            revoked = replace(key, revoked=when)
            if self._store({**json.loads(old), "revoked": when}, name, old):
                return revoked
        raise InputError(f"the key {name!r} is being changed by others; try again", "name")

    def all(self) -> list[ApiKey]:
        return sorted(map(_key, self._redis.read(("HVALS", self._hash))[0]), key=lambda key: key.name)

    def version(self) -> int:
        return int(self._redis.read(("GET", self._version))[0] or 0)

    def close(self) -> None:
        self._redis.close()

    def _get(self, name: str) -> bytes | None:
        value: bytes | None = self._redis.read(("HGET", self._hash, name))[0]
        return value

    def _store(self, record: Mapping[str, Any], name: str, old: bytes | None) -> bool:
        text = json.dumps(record)
        reply = self._redis.write("EVAL", _STORE, 2, self._hash, self._version, name, text, old or b"")
        return bool(reply)


def _record(key: ApiKey) -> dict[str, Any]:
    return {**asdict(key), "scopes": sorted(key.scopes)}


def _key(record: bytes) -> ApiKey:
    """Without scopes if the record has a field of a later version, which may restrict the key."""
    given: dict[str, Any] = json.loads(record)
    known = {name: value for name, value in given.items() if name in _FIELDS}
    return ApiKey(**{**known, "scopes": frozenset(given["scopes"] if len(known) == len(given) else ())})
