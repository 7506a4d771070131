"""How a stage turns sequences into vectors while it trains: shared among processes, in chunks, in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from seqrec.item_text import TokenizedHistory, TokenizedItem
from seqrec.model import Batch, SequenceModel
from training.distributed import gather, share


@dataclass(frozen=True)
class Encoding:
    """`chunk`: sequences encoded at a time, 0 for all of a batch at once.

    With a chunk, no activations are kept: the vectors of the whole batch go into one loss, and each chunk is encoded
    a second time, with the same dropout, when its gradient is known (gradient caching: Gao et al. 2021, "Scaling Deep
    Contrastive Learning Batch Size under Memory Limited Setup"). So a contrastive batch stays whole, in the memory
    of a chunk, for a third more computation.
    """

    chunk: int = 0
    bfloat16: bool = False

    def items(self, model: SequenceModel, items: Sequence[TokenizedItem], device: torch.device) -> tuple[Tensor, int]:
        """-> float32 [n, dim] with gradients, of all processes, and how many tokens this one read."""
        return self._vectors(items, model.prepare_items, model.encode_items, device)

    def histories(
        self, model: SequenceModel, histories: Sequence[TokenizedHistory], device: torch.device
    ) -> tuple[Tensor, int]:
        """-> float32 [b, dim] with gradients, of all processes, and how many tokens this one read."""
        return self._vectors(histories, model.prepare_histories, model.encode_histories, device)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The precision of the model's own computation; losses are computed outside of it, in float32."""
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
        # A process without a share takes part all the same: its gradients are zeros, and the others wait for them.
        read = own or sequences[:1]
        size = self.chunk or len(read)
        batches = [prepare(read[at : at + size]).to(device) for at in range(0, len(read), size)]
        here = torch.empty(0, device=device)  # tells `checkpoint` whose random numbers to bring back
        if self.chunk and torch.is_grad_enabled():
            vectors = [checkpoint(forward, batch, here, use_reentrant=False) for batch in batches]
        else:
            vectors = [forward(batch, here) for batch in batches]
        rows = torch.cat(vectors)[: len(own)]
        return gather(rows, len(sequences)), sum(batch.tokens for batch in batches)
