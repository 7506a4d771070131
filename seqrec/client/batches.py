"""Cuts a stream of entries into batches that the service accepts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
Progress = Callable[[int], object]
"""Called after each batch with the number of entries that are stored so far."""


class _Batcher:
    """At most `count` entries and about `size` bytes of JSON a batch; a larger entry is a batch of its own."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self.batch: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, entry: dict[str, Any]) -> list[dict[str, Any]] | None:
        """The batch that is full, before this entry."""
        length = len(json.dumps(entry)) + 1
        full = None
        if self.batch and (len(self.batch) >= self._count or self._bytes + length > self._size):
            full, self.batch, self._bytes = self.batch, [], 0
        self.batch.append(entry)
        self._bytes += length
        return full


def batches(
    entries: Iterable[T], body: Callable[[T], dict[str, Any]], count: int, size: int
) -> Iterator[list[dict[str, Any]]]:
    """`body`: an entry as it is sent."""
    batcher = _Batcher(count, size)
    for entry in entries:
        if full := batcher.add(body(entry)):
            yield full
    if batcher.batch:
        yield batcher.batch


async def async_batches(
    entries: Iterable[T] | AsyncIterable[T], body: Callable[[T], dict[str, Any]], count: int, size: int
) -> AsyncIterator[list[dict[str, Any]]]:
    batcher = _Batcher(count, size)
    if isinstance(entries, AsyncIterable):
        async for entry in entries:
            if full := batcher.add(body(entry)):
                yield full
        if batcher.batch:
            yield batcher.batch
        return
    for some in batches(entries, body, count, size):
        yield some
