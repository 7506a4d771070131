"""Settings of the C library's allocator and Python's garbage collector for processes that compute in batches."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of the GNU C library
_ARENAS = 2
MMAP_THRESHOLD = 32 << 20
"""Bytes from which a block gets a mapping of its own; the maximum of glibc's dynamic threshold."""
TRIM_THRESHOLD = 64 << 20
"""Free bytes at the end of a heap from which they are returned to the system."""


def tune_malloc() -> None:
    """Reuses freed memory instead of returning it to the system after each batch. With glibc; elsewhere does nothing.

    By default glibc unmaps the few megabytes of a batch's tensors as soon as they are freed. Then every page of the
    next batch is a page fault, 2,000 for a history, and each unmapping interrupts the other cores (2 cores, histories:
    1.05 times as fast in float32, 1.1 times in int8).
    """
    mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)


def mallopt(option: int, value: int) -> None:
    """Sets an option of glibc's allocator; elsewhere does nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(option, value)


def limit_arenas() -> None:
    """Lets threads share heaps, so that one can reuse what another freed (glibc). Call it before starting threads."""
    mallopt(_M_ARENA_MAX, _ARENAS)


def freeze_gc() -> None:
    """Excludes all current objects from garbage collection. Call it after the imports, which create 200,000 objects.

    A full collection of them blocked requests for 250 ms; without them it takes under 1 ms.
    """
    gc.collect()
    gc.freeze()


def trim_heap() -> None:
    """Returns freed memory to the system (glibc). Takes tens of ms, without the GIL."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
