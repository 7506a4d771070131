"""Giving memory back: what an old state held is free, but the C library keeps freed pieces for itself."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

from seqrec.memory import mallopt

_M_ARENA_MAX = -8  # of glibc's malloc.h
_ARENAS = 2


def limit_arenas() -> None:
    """Let threads share heaps (glibc): with one each, what one frees no other uses. Before there are threads."""
    mallopt(_M_ARENA_MAX, _ARENAS)


def spare_what_stays() -> None:
    """Take all that is there (the libraries' 200,000 objects) out of garbage collection, once all is imported.

    A full collection looked through them for 250 ms, in which no request was answered; afterwards it takes under 1 ms.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc): some tens of ms, without the GIL."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
