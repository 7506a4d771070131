"""An index that one thread owns, which makes and searches it whoever asks: FAISS's GPU indexes want that."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from index.vectors.base import Allowed, Rows, VectorIndex, Vectors


class SingleThreadIndex:
    """Searches of several threads wait for one another. The thread ends with this object."""

    def __init__(self, make: Callable[[], VectorIndex]) -> None:
        """`make` is called on the thread; what it raises is raised here."""
        self._thread = ThreadPoolExecutor(1, "index")
        weakref.finalize(self, self._thread.shutdown, wait=False)
        self._index = self._thread.submit(make).result()

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> tuple[Rows, Vectors]:
        return self._thread.submit(self._index.search, queries, k, allowed).result()
