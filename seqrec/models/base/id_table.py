"""The items that a model knows by themselves, by id: which row of its tables is whose.

The table goes into the checkpoint with the weights, as one buffer of bytes, so a model that knows items is saved,
loaded and digested like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from seqrec.errors import InputError
from seqrec.text.item_text import KNOWN, TokenizedItem

_BETWEEN = "\n"  # an item id holds no control characters


class ItemIds(nn.Module):
    """`encoded`: uint8 [bytes], the ids in the order of their rows."""

    def __init__(self, size: int) -> None:
        """`size`: bytes of all ids together, with one between each two. The ids come with the weights."""
        super().__init__()
        self.encoded: Tensor
        self.register_buffer("encoded", torch.zeros(size, dtype=torch.uint8))
        self._rows: dict[str, int] | None = None

    @classmethod
    def of(cls, item_ids: Sequence[str]) -> Self:
        """Raises InputError if an id is there twice."""
        if len(set(item_ids)) != len(item_ids):
            raise InputError("an item id is there twice")
        text = _BETWEEN.join(item_ids).encode()
        ids = cls(len(text))
        ids.encoded.copy_(torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy()))
        return ids

    @property
    def size(self) -> int:
        return len(self.encoded)

    def row(self, item_id: str) -> int | None:
        """The item's row, None for an item that is not known."""
        if self._rows is None:  # made from the weights at the first use: they are loaded after the model is built
            text = bytes(self.encoded.cpu().numpy()).decode()
            self._rows = {known: row for row, known in enumerate(text.split(_BETWEEN))} if text else {}
        return self._rows.get(item_id)

    def token(self, item_id: str) -> TokenizedItem:
        """The item as one token of type KNOWN; no token for an item that is not known."""
        row = self.row(item_id)
        ids = [] if row is None else [row]
        return TokenizedItem(np.array(ids, np.int32), np.full(len(ids), KNOWN, np.uint8))


def known_row(item: TokenizedItem) -> int | None:
    """The row that the last token of an item names, if it is one of type KNOWN."""
    return int(item.ids[-1]) if len(item.types) and item.types[-1] == KNOWN else None


def with_row(text: TokenizedItem, known: TokenizedItem) -> TokenizedItem:
    """The tokens of a text, and after them what `ItemIds.token` made of its item."""
    return TokenizedItem(np.concatenate([text.ids, known.ids]), np.concatenate([text.types, known.types]))


def without_row(item: TokenizedItem) -> TokenizedItem:
    """The text alone."""
    return item if known_row(item) is None else TokenizedItem(item.ids[:-1], item.types[:-1])
