"""What the batch job hands out: batches of items to encode, blocks of pairs to count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from scipy.sparse import csr_array

from seqrec.encoder import Encoder, Vectors
from seqrec.hybrid.cooccurrence import Pairs
from seqrec.text.item_text import TokenizedItem

Count = Callable[[int], object]
"""Called with the number of items done since its last call."""


class Workers(Protocol):
    """Results are in the order of the inputs, and those of all implementations have the same bits.

    The last bits of a vector depend on what else is in its batch and on the number of threads, so both are kept: a
    batch is encoded by one process, with the number of threads that the job has.
    """

    def encode(self, batches: Iterable[Sequence[TokenizedItem]], count: Count = lambda done: None) -> Iterator[Vectors]:
        """float32 [n, dim] for each batch of n items. Batches may be read ahead."""
        ...

    def count_blocks(self, pairs: Pairs) -> Iterator[csr_array]:
        """The blocks of `pairs`."""
        ...

    def finish(self) -> None:
        """The snapshot is written: what was kept to continue the job is removed."""
        ...


class ThisProcess:
    """Computes everything itself."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def encode(self, batches: Iterable[Sequence[TokenizedItem]], count: Count = lambda done: None) -> Iterator[Vectors]:
        return (self._encoder.encode_item_tokens(batch, count) for batch in batches)

    def count_blocks(self, pairs: Pairs) -> Iterator[csr_array]:
        return pairs.blocks()

    def finish(self) -> None:
        pass
