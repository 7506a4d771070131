"""An index that one thread creates and searches on behalf of all others, as FAISS's GPU indexes require."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from index.vectors.base import Allowed, Rows, VectorIndex, Vectors


class SingleThreadIndex:
    """Concurrent searches run one after another. The thread ends with this object."""

    def __init__(self, make: Callable[[], VectorIndex]) -> None:
        """`make` is called on the thread; its exceptions are raised here."""
        self._thread = ThreadPoolExecutor(1, "index")
        weakref.finalize(self, self._thread.shutdown, wait=False)
        self._index = self._thread.submit(make).result()

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        return self._thread.submit(self._index.search, queries, k, allowed).result()
