"""The C library's allocator and Python's garbage collector, set for a process that computes in batches."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of the GNU C library
_ARENAS = 2
MMAP_THRESHOLD = 32 << 20
"""Bytes of one block, from which on it is mapped by itself; the most that the library comes to by itself."""
TRIM_THRESHOLD = 64 << 20
"""Bytes free at the end of a thread's heap, from which on they go back to the system."""


def tune_malloc() -> None:
    """Freed memory is used again, instead of going back to the system after each batch and being mapped anew.

    A batch's tensors are a few megabytes, which the GNU C library gives back at once; every page of them then is a
    fault, in the encoder one for each of 2,000 pages a history, and each return interrupts the other cores (2 cores,
    histories: 1.05 times as fast in float32, 1.1 times in int8). Elsewhere than with that library nothing happens.
    """
    mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)


def mallopt(option: int, value: int) -> None:
    """Sets an option of the GNU C library's allocator; nothing where there is another."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(option, value)


def limit_arenas() -> None:
    """Let threads share heaps (glibc): with one each, what one frees no other uses. Before there are threads."""
    mallopt(_M_ARENA_MAX, _ARENAS)


def freeze_gc() -> None:
    """Take all that is there (the libraries' 200,000 objects) out of garbage collection, once all is imported.

    A full collection looked through them for 250 ms, in which no request was answered; afterwards it takes under 1 ms.
    """
    gc.collect()
    gc.freeze()


def trim_heap() -> None:
    """Return freed memory to the system, where the C library can (glibc): some tens of ms, without the GIL."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
