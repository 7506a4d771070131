"""Decides whether to accept another request, before its body is read."""

from __future__ import annotations

from collections import Counter

_SHARE = 3
"""A client may have as many open requests as this many times the free places."""


class Admission:
    """Limits the open requests of a worker, fairly between clients, which are distinguished by their address.

    The limit of a client is a multiple of the places that are free ("Dynamic queue length thresholds for shared-memory
    packet switches", Choudhury and Hahne, 1998): a single busy client gets three quarters of all places, and others
    still find some.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._open: Counter[str] = Counter()
        self._total = 0

    def full(self, client: str) -> bool:
        """Whether there is no place for this client."""
        open_, free = self._open.get(client, 0), self._places - self._total
        return free <= 0 or open_ >= max(1, _SHARE * free)

    def enter(self, client: str) -> bool:
        """Take a place, if there is one; every True must be followed by `leave`."""
        if self.full(client):
            return False
        self._open[client] += 1
        self._total += 1
        return True

    def leave(self, client: str) -> None:
        self._total -= 1
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]
