"""A cache of user vectors: an unchanged history is not encoded again.

A key is a digest of everything that determines a vector: the history tower, the precision, the user and the token ids
of the history's items. So no entry can be stale: a changed item text or another model gives other keys.

Each process keeps the most recently used entries, up to a number of bytes. Optionally a Redis is shared by all
processes.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import redis

from index.catalogue.redis.connection import check_database
from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.text.item_text import TokenizedHistory

log = logging.getLogger(__name__)

Vector = npt.NDArray[np.float32]
ENTRY_BYTES = 300
"""Overhead of an entry, as measured: key, array object, links."""
KEEP_SECONDS = 3600
"""Lifetime of an entry in Redis."""
_TIMEOUT = 0.1  # seconds; encoding is faster than waiting longer
_AWAY_SECONDS = 5.0
_PREFIX = b"seqrec-vector:"


def cache_key(encoder: Encoder, history: TokenizedHistory) -> bytes:
    """16 bytes; equal keys mean equal vectors."""
    checkpoint = encoder.checkpoint
    digest = hashlib.blake2b(digest_size=16)
    for part in (checkpoint.history_tower, encoder.precision, history.user_id or ""):
        digest.update(part.encode() + b"\0")
    for item in history.items:
        digest.update(len(item.ids).to_bytes(4, "little"))
        digest.update(item.ids.tobytes())
        digest.update(item.types.tobytes())
    return digest.digest()


class VectorCache:
    """Safe for several threads. With 0 bytes and no Redis it stores nothing."""

    def __init__(
        self,
        max_bytes: int,
        url: str | None = None,
        observe: Callable[[str, int], object] = lambda result, count: None,
    ) -> None:
        """`observe` is called with the number of vectors found in "memory" or "redis", or not found ("miss").

        Raises InputError for an invalid URL. An unreachable Redis is ignored.
        """
        self._max_bytes = max_bytes
        self._observe = observe
        self._entries: OrderedDict[bytes, Vector] = OrderedDict()
        self._lock = threading.Lock()
        self._away_until = 0.0
        self._shared: redis.Redis | None = None
        self.bytes = 0
        if url is not None:
            try:
                check_database(url)
                self._shared = redis.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
            except ValueError as error:
                raise InputError(f"{error}; such as redis://localhost:6379/1", "SEQREC_CACHE_URL") from None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def shared(self) -> bool:
        return self._shared is not None

    @property
    def enabled(self) -> bool:
        return self._max_bytes > 0 or self._shared is not None

    def get(self, keys: Sequence[bytes], dim: int) -> dict[bytes, Vector]:
        """The vectors [dim] that are cached."""
        found: dict[bytes, Vector] = {}
        with self._lock:
            for key in keys:
                vector = self._entries.get(key)
                if vector is not None:
                    self._entries.move_to_end(key)
                    found[key] = vector
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        self._observe("memory", len(keys) - sum(key not in found for key in keys))
        elsewhere = self._from_shared(missing, dim) if missing else {}
        self.put(elsewhere)
        self._observe("redis", len(elsewhere))
        self._observe("miss", len(missing) - len(elsewhere))
        return found | elsewhere

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Store vectors in this process."""
        with self._lock:
            for key, vector in vectors.items():
                if key in self._entries or vector.nbytes + ENTRY_BYTES > self._max_bytes:
                    continue
                self._entries[key] = np.array(vector)  # a row of its batch would keep the whole batch
                self.bytes += vector.nbytes + ENTRY_BYTES
            while self.bytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self.bytes -= oldest.nbytes + ENTRY_BYTES

    def share(self, vectors: Mapping[bytes, Vector]) -> None:
        """Store vectors in Redis, if one is configured; waits for it."""
        if self._shared is None or time.monotonic() < self._away_until:
            return
        try:
            pipeline = self._shared.pipeline(transaction=False)
            for key, vector in vectors.items():
                pipeline.set(_PREFIX + key, vector.tobytes(), ex=KEEP_SECONDS)
            pipeline.execute()
        except redis.RedisError as error:
            self._away(error)

    def close(self) -> None:
        if self._shared is not None:
            self._shared.close()

    def _from_shared(self, keys: Sequence[bytes], dim: int) -> dict[bytes, Vector]:
        if self._shared is None or time.monotonic() < self._away_until:
            return {}
        try:
            values = self._shared.mget([_PREFIX + key for key in keys])
        except redis.RedisError as error:
            self._away(error)
            return {}
        return {
            key: np.frombuffer(value, np.float32)
            for key, value in zip(keys, values, strict=True)
            if value is not None and len(value) == 4 * dim
        }

    def _away(self, error: redis.RedisError) -> None:
        self._away_until = time.monotonic() + _AWAY_SECONDS
        log.warning("the Redis of SEQREC_CACHE_URL does not answer and is not used for %g s: %s", _AWAY_SECONDS, error)
