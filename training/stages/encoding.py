"""Encoding of sequences in training: split among processes, in chunks, in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from seqrec.models.base.model import Batch, SequenceModel
from seqrec.text.item_text import TokenizedHistory, TokenizedItem
from training.distributed import gather, processes, share


@dataclass(frozen=True)
class Encoding:
    """`chunk`: sequences encoded at a time; 0: the whole batch.

    With chunks, no activations are kept: the vectors of the whole batch go into one loss, and each chunk is encoded a
    second time, with the same dropout, when its gradient is known (gradient caching: Gao et al. 2021, "Scaling Deep
    Contrastive Learning Batch Size under Memory Limited Setup"). The loss is that of the whole batch, in the memory of
    a chunk, for a third more computation.
    """

    chunk: int = 0
    bfloat16: bool = False

    def items(self, model: SequenceModel, items: Sequence[TokenizedItem], device: torch.device) -> tuple[Tensor, int]:
        """-> float32 [n, dim] of all processes, with gradients, and the number of tokens of this one"""
        return self._vectors(items, model.prepare_items, model.encode_items, device)

    def histories(
        self, model: SequenceModel, histories: Sequence[TokenizedHistory], device: torch.device
    ) -> tuple[Tensor, int]:
        """-> float32 [b, dim] of all processes, with gradients, and the number of tokens of this one"""
        return self._vectors(histories, model.prepare_histories, model.encode_histories, device)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The precision of the model; losses are computed outside, in float32."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16)

    def _vectors(
        self,
        sequences: Sequence[Any],
        prepare: Callable[[Sequence[Any]], Batch],
        encode: Callable[[Any], Tensor],
        device: torch.device,
    ) -> tuple[Tensor, int]:
        def forward(batch: Batch, _: Tensor) -> Tensor:
            with self.autocast(device):
                return encode(batch).float()

        own = sequences[share(len(sequences))]
        most = -(-len(sequences) // processes())
        size = self.chunk or most
        # All processes encode equally often, if need be a sequence that is discarded: with sharded weights they wait
        # for each other in every layer.
        chunks = [own[at : at + size] or sequences[:1] for at in range(0, most, size)]
        batches = [prepare(chunk).to(device) for chunk in chunks]
        here = torch.empty(0, device=device)  # its device is the one whose random state `checkpoint` restores
        if self.chunk and torch.is_grad_enabled():
            vectors = [checkpoint(forward, batch, here, use_reentrant=False) for batch in batches]
        else:
            vectors = [forward(batch, here) for batch in batches]
        rows = torch.cat(vectors)[: len(own)]
        return gather(rows, len(sequences)), sum(batch.tokens for batch in batches)


PLAIN = Encoding()
"""Whole batches in float32."""
