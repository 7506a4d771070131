"""The contract of search engines: dense or sparse query, filter, exclusions, k -> rows of a snapshot and scores."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from service.live.filter_language import Filter

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
TermRow = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]
"""Terms as places in the vocabulary, and their weights."""


@dataclass(frozen=True, eq=False)
class EngineQuery:
    """The k best rows for one query: `vector` [dim], or `terms` with at least one weight above 0; never both.

    A hybrid asks for both lists and sums exact scores over their union: its gates weigh each item differently.
    """

    k: int
    vector: npt.NDArray[np.float32] | None = None
    terms: TermRow | None = None
    filter: Filter | None = None
    excluded: Collection[int] = ()  # rows


class Found(NamedTuple):
    """Best first. Fewer than k: no other row may answer, or for terms, none has one of them."""

    rows: Rows  # [f], f <= k
    scores: Scores  # [f]


class SearchEngine(Protocol):
    """Searches the rows of one snapshot that are available. Safe for several threads.

    No answer has a row that is excluded or that the filter does not pass. Equal scores come in any order. Raises
    EngineUnavailable where an external engine does not answer, and SnapshotError where it lacks the snapshot.
    """

    def search(self, queries: Sequence[EngineQuery]) -> list[Found]: ...

    def has_attribute(self, name: str) -> bool:
        """Whether an item of the snapshot has the attribute."""
        ...
