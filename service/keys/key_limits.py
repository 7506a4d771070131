"""Rates and quotas of keys, counted by the library `limits`: in the worker's memory, or in a Redis for all."""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from typing import Any

import limits
import redis
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from index.keys.base import ApiKey

log = logging.getLogger(__name__)

_TIMEOUT = 0.25
_AWAY_SECONDS = 1.0
"""How long a Redis that failed is left alone; meanwhile the worker counts in its memory."""


class KeyLimits:
    """To be used from one event loop."""

    def __init__(self, url: str | None) -> None:
        """`url`: of the Redis that counts for all workers and hosts; None: this worker counts its own requests."""
        self._memory = _Counters(MemoryStorage())
        self._url = url
        self._shared: _Counters | None = None
        self._away_until = 0.0

    async def refused(self, key: ApiKey) -> tuple[str, int] | None:
        """Count a request. The limit that does not allow it, and the seconds until the next attempt; None: allowed."""
        if key.rate is None and key.quota is None:
            return None
        if self._url is not None and time.monotonic() >= self._away_until:
            try:
                self._shared = self._shared or _Counters(_redis_storage(self._url))
                return await self._shared.refused(key)
            except (redis.RedisError, OSError) as error:
                self._away_until = time.monotonic() + _AWAY_SECONDS
                log.warning("the Redis of SEQREC_LIMITS_URL cannot be used, counting in memory: %s", error)
        return await self._memory.refused(key)

    async def close(self) -> None:
        if self._shared is not None:
            with suppress(redis.RedisError, OSError):
                await self._shared.close()


class _Counters:
    def __init__(self, storage: MemoryStorage | RedisStorage) -> None:
        self._storage = storage
        self._rates = SlidingWindowCounterRateLimiter(storage)
        self._quotas = FixedWindowRateLimiter(storage)

    async def refused(self, key: ApiKey) -> tuple[str, int] | None:
        for kind, limit, limiter in (("rate", key.rate, self._rates), ("quota", key.quota, self._quotas)):
            if limit is None:
                continue
            item = limits.parse(limit)
            # With the digest: a new key of the same name starts from 0.
            who = (kind, key.name, key.digest[:16])
            if not await limiter.hit(item, *who):
                stats = await limiter.get_window_stats(item, *who)
                return f"{kind} of {limit}", max(1, math.ceil(stats.reset_time - time.time()))
        return None

    async def close(self) -> None:
        if isinstance(self._storage, RedisStorage):
            client: Any = self._storage.bridge.storage  # type: ignore[attr-defined]
            await client.aclose()


def _redis_storage(url: str) -> RedisStorage:
    scheme, _, rest = url.partition("://")
    kind = "redis+unix" if scheme == "unix" else scheme
    return RedisStorage(
        f"async+{kind}://{rest}",
        implementation="redispy",
        key_prefix="seqrec:limits",
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
    )
