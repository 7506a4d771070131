"""A lease in a Redis: held by one process of any host, renewed while it lives, gone soon after it died."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from index.catalogue.redis.connection import RedisConnections
from seqrec.errors import CatalogueError, SnapshotError

log = logging.getLogger(__name__)

SECONDS = 30.0
"""How long a lease outlives its process."""

_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisLease:
    """Meets `index.catalogue.locks.Lease`. A write that names `token` is refused once the lease is lost."""

    def __init__(self, connections: RedisConnections, name: str, seconds: float) -> None:
        self.name = name
        self.token = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        self._redis = connections
        self._key = connections.key(f"lease:{name}")
        self._seconds = seconds
        self._until = 0.0  # monotonic: it is ours until then at least

    def take(self) -> str | None:
        """Try to get it; returns who holds it, or None where it is ours now."""
        asked = time.monotonic()
        command = ("SET", self._key, self.token, "NX", "PX", int(self._seconds * 1000))
        if self._redis.read(command)[0] is not None:
            self._until = asked + self._seconds
            return None
        holder = self._redis.read(("GET", self._key))[0]
        return "another process" if holder is None else str(holder.decode().rpartition(":")[0])

    def renew(self) -> None:
        asked = time.monotonic()
        if self._redis.read(("EVAL", _RENEW, 1, self._key, self.token, int(self._seconds * 1000)))[0] == 1:
            self._until = asked + self._seconds
        else:
            self._until = 0.0

    def release(self) -> None:
        self._redis.read(("EVAL", _RELEASE, 1, self._key, self.token))

    def check(self) -> None:
        if time.monotonic() >= self._until:
            raise SnapshotError(
                f"the lease {self.name!r} was lost: the Redis could not be reached in time, or forgot it; another "
                "process may be at work. Start again"
            )


@contextmanager
def redis_lease(connections: RedisConnections, name: str, wait: bool, seconds: float = SECONDS) -> Iterator[RedisLease]:
    """Hold a lease, renewed in a thread. Without `wait`, raises SnapshotError where another process holds it."""
    lease = RedisLease(connections, name, seconds)
    while holder := lease.take():
        if not wait:
            raise SnapshotError(f"{name}: {holder} is at it already; wait for it to end")
        time.sleep(min(0.1, seconds / 10))
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(lease, ended, seconds / 3), name=f"lease-{name}", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        with suppress(CatalogueError):  # it runs out by itself
            lease.release()


def _keep(lease: RedisLease, ended: threading.Event, every: float) -> None:
    while not ended.wait(every):
        try:
            lease.renew()
        except CatalogueError as error:
            log.warning("the lease %r could not be renewed: %s", lease.name, error)
            ended.wait(min(1.0, every))
