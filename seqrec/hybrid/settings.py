"""Everything that a hybrid score depends on apart from counts, texts and dense vectors; kept in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from seqrec.errors import InputError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings


@dataclass(frozen=True, slots=True)
class HybridSettings:
    """The weights of the parts, chosen on validation by `training.stages.hybrid`.

    With K the co-occurrence score of history h and item j, t unit term vectors, d dense vectors and n_j the events of
    item j,

        score(h, j) = pairs K(h, j)  +  (1 + cold_boost / (1 + n_j)) text(h, j)  +  own(h, j)
        text(h, j) = (last_text t(last item of h) + recent_text t(recent items of h) + dense d(h)) . (t_j, d_j)
        own(h, j) = seen where j is in h, and last_item on top where it is h's last item

    The gate 1 / (1 + n_j) gives items without events, for which K is 0, more of the text score: at cold_boost 0 they
    lose half of their quality to items with events.
    """

    cooccurrence: CooccurrenceSettings = field(default_factory=CooccurrenceSettings)
    pairs: float = 1.0
    last_text: float = 0.0
    recent_text: float = 0.0
    dense: float = 0.0
    dense_items: int = 0  # the newest items of a history that the dense model reads; 0: all
    cold_boost: float = 0.0
    exclude_seen: bool = True  # what a request gets that does not choose
    seen: float = 0.0
    last_item: float = 0.0

    def __post_init__(self) -> None:
        for name in ("pairs", "last_text", "recent_text", "dense", "dense_items", "cold_boost"):
            if not 0 <= getattr(self, name) < np.inf:
                raise InputError(f"{getattr(self, name)} is not a number from 0 up", f"hybrid.{name}")
        for name in ("seen", "last_item"):
            if not np.isfinite(getattr(self, name)):
                raise InputError(f"{getattr(self, name)} is not a finite number", f"hybrid.{name}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        return cls(**{**record, "cooccurrence": CooccurrenceSettings(**record["cooccurrence"])})
