"""Experiments of a placement: which variant of its rules a user gets, and which snapshot answers unseen."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HOLDOUT = "holdout"
"""The variant of users who get the most popular items in place of a recommendation."""


@dataclass(frozen=True)
class Variant:
    """`values` replace those of the placement, field by field."""

    name: str
    weight: float
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """`holdout`: a share of the users, from 0 to below 1. The others are divided by the weights of the variants."""

    name: str
    variants: Sequence[Variant]
    holdout: float = 0.0

    def variant_of(self, unit: str) -> Variant | None:
        """Of a user or a session, always the same one; None: the holdout.

        Weighted rendezvous hashing: each variant draws -ln(hash) / weight, an exponential variable, and the smallest
        wins. A change of weights moves users only to variants that gained and from those that lost, and a larger
        holdout takes in more users and lets none go.
        """
        if _uniform(self.name, HOLDOUT, unit) < self.holdout:
            return None
        drawn = [one for one in self.variants if one.weight]
        return min(drawn, key=lambda one: -math.log(_uniform(self.name, one.name, unit)) / one.weight)


@dataclass(frozen=True)
class Shadow:
    """A snapshot that answers a `share` of the requests as well, unseen by the user."""

    snapshot: str
    share: float


@dataclass(frozen=True)
class Compared:
    """The answers of the published snapshot and of a shadow to one request.

    `overlap`: share of the first ten items that both have. Seconds of computing; None where that is not known.
    """

    overlap: float
    same_first: bool
    published_seconds: float | None
    shadow_seconds: float


def _uniform(*parts: str) -> float:
    """In (0, 1), from a hash."""
    digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=7).digest()
    return (int.from_bytes(digest) + 1) / (2**56 + 1)
