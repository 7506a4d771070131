"""A lease in Redis: one holder on any host, renewed while its process lives, released soon after it dies."""

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
"""How long a lease stays after its process died."""

_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisLease:
    """Implements `index.catalogue.locks.Lease`. A write that names `token` is refused once the lease is lost."""

    def __init__(self, connections: RedisConnections, name: str, seconds: float) -> None:
        self.name = name
        self.token = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        self._redis = connections
        self._key = connections.key(f"lease:{name}")
        self._seconds = seconds
        self._until = 0.0  # monotonic clock: held at least until then

    def take(self) -> str | None:
        """Try to acquire it; returns the holder, or None if it is acquired."""
        begin = time.monotonic()
        command = ("SET", self._key, self.token, "NX", "PX", int(self._seconds * 1000))
        if self._redis.read(command)[0] is not None:
            self._until = begin + self._seconds
            return None
        holder = self._redis.read(("GET", self._key))[0]
        return "another process" if holder is None else str(holder.decode().rpartition(":")[0])

    def renew(self) -> None:
        begin = time.monotonic()
        if self._redis.read(("EVAL", _RENEW, 1, self._key, self.token, int(self._seconds * 1000)))[0] == 1:
            self._until = begin + self._seconds
        else:
            self._until = 0.0

    def release(self) -> None:
        self._redis.read(("EVAL", _RELEASE, 1, self._key, self.token))

    def check(self) -> None:
        if time.monotonic() >= self._until:
            raise SnapshotError(
                f"the lease {self.name!r} was lost: the Redis server could not be reached in time, or lost it, so "
                "another process may hold it now. Start again"
            )


@contextmanager
def redis_lease(connections: RedisConnections, name: str, wait: bool, seconds: float = SECONDS) -> Iterator[RedisLease]:
    """Hold a lease and renew it in a thread. Without `wait`, raises SnapshotError if another process holds it."""
    lease = RedisLease(connections, name, seconds)
    while holder := lease.take():
        if not wait:
            raise SnapshotError(f"{name} is already running, by {holder}; wait until it ends")
        time.sleep(min(0.1, seconds / 10))
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(lease, ended, seconds / 3), name=f"lease-{name}", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        with suppress(CatalogueError):  # it expires by itself
            lease.release()


def _keep(lease: RedisLease, ended: threading.Event, every: float) -> None:
    while not ended.wait(every):
        try:
            lease.renew()
        except CatalogueError as error:
            log.warning("the lease %r could not be renewed: %s", lease.name, error)
            ended.wait(min(1.0, every))
