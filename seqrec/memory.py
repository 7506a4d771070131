"""How the C library keeps memory that was freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
MMAP_THRESHOLD = 32 << 20
"""Bytes of one block, from which on it is mapped by itself; the most that the library comes to by itself."""
TRIM_THRESHOLD = 64 << 20
"""Bytes free at the end of a thread's heap, from which on they go back to the system."""


def keep_freed() -> None:
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
