"""The task that counts pairs. A module of its own, since the processes that run it need no torch."""

from __future__ import annotations

from index.cluster.shards import Arrays
from seqrec.hybrid.cooccurrence import Pairs


def count_block(pairs: Pairs, bounds: tuple[int, int]) -> Arrays:
    """The rows of C between the bounds, as compressed sparse rows."""
    block = pairs.block(*bounds)
    return {"values": block.data, "columns": block.indices, "offsets": block.indptr}
