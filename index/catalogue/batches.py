"""Cuts a sequence into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

BATCH = 1000
"""Items encoded and stored together: enough to sort by length, few enough to lose if interrupted."""

T = TypeVar("T")


def batches(values: Iterable[T], size: int | None = None) -> Iterator[list[T]]:
    """All values in order, in lists of `size` (default `BATCH`); the last may be shorter."""
    iterator = iter(values)
    while batch := list(islice(iterator, size or BATCH)):
        yield batch
