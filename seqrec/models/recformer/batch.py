"""The input of a Recformer: sequences end to end in one stream of tokens, and the groups in which they attend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GROUPS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Upper bounds of the lengths in a group. Padding at most doubles the length of a sequence."""


class Tokens(Protocol):
    """The input of the embedding; all int64 [t]."""

    @property
    def input_ids(self) -> Tensor: ...
    @property
    def token_types(self) -> Tensor: ...
    @property
    def item_positions(self) -> Tensor: ...
    @property
    def positions(self) -> Tensor: ...


class Group(NamedTuple):
    """g sequences of similar length that attend in one batch, padded to n tokens."""

    sequences: Tensor  # int64 [g], rows of the batch
    tokens: Tensor  # int64 [g * n], the position of each token in the stream (padding: that of the [CLS])
    real: Tensor  # bool [g, n]


@dataclass(frozen=True)
class PackedBatch:
    """Sequences end to end, b of them, t tokens in all; all int64."""

    input_ids: Tensor  # [t]
    token_types: Tensor  # [t]
    item_positions: Tensor  # [t], 0 [CLS], 1 the newest item, ...
    positions: Tensor  # [t]
    cls: Tensor  # [b], the position of each [CLS]
    groups: tuple[Group, ...]
    from_groups: Tensor  # [t], the position of each token in the concatenated groups

    @property
    def tokens(self) -> int:
        return len(self.input_ids)

    def with_input_ids(self, input_ids: Tensor) -> Self:
        """The same batch with other token ids [t]."""
        return replace(self, input_ids=input_ids)

    def to(self, device: torch.device | str) -> Self:
        names = ("input_ids", "token_types", "item_positions", "positions", "cls", "from_groups")
        groups = tuple(Group(*(tensor.to(device) for tensor in group)) for group in self.groups)
        return replace(self, groups=groups, **{name: getattr(self, name).to(device) for name in names})


def pack(
    ids: npt.NDArray[Any],
    types: npt.NDArray[Any],
    item_positions: npt.NDArray[Any],
    lengths: npt.NDArray[np.int64],
    first: int,
) -> PackedBatch:
    """Arrays [t] of concatenated sequences and their lengths [b], each at least 1; `first`: the first position id."""
    starts = np.cumsum(lengths) - lengths
    within = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    from_groups = np.empty(len(within), dtype=np.int64)
    groups = []
    padded_so_far = 0
    for sequences in _grouped(lengths):
        n = int(lengths[sequences].max())
        place = np.arange(n)
        real = place < lengths[sequences, None]  # [g, n]
        tokens = starts[sequences, None] + np.where(real, place, 0)
        from_groups[tokens[real]] = padded_so_far + np.flatnonzero(real)
        padded_so_far += real.size
        groups.append(Group(torch.from_numpy(sequences), torch.from_numpy(tokens.reshape(-1)), torch.from_numpy(real)))
    return PackedBatch(
        input_ids=torch.from_numpy(ids.astype(np.int64)),
        token_types=torch.from_numpy(types.astype(np.int64)),
        item_positions=torch.from_numpy(item_positions.astype(np.int64)),
        positions=torch.from_numpy(within + first),
        cls=torch.from_numpy(starts),
        groups=tuple(groups),
        from_groups=torch.from_numpy(from_groups),
    )


def _grouped(lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The rows of each group."""
    bucket = np.searchsorted(GROUPS, lengths)
    return [np.flatnonzero(bucket == one) for one in np.unique(bucket)]
