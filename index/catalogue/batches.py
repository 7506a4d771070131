"""A long row of things, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

BATCH = 1000
"""Items encoded and put at once: enough to sort by length, little enough to lose when it is broken off."""

T = TypeVar("T")


def batches(values: Iterable[T], size: int | None = None) -> Iterator[list[T]]:
    """All values in order, `size` (`BATCH`) at a time; the last may be fewer."""
    iterator = iter(values)
    while batch := list(islice(iterator, size or BATCH)):
        yield batch
