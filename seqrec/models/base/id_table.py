"""The rows of items (or users) in a model's tables, by id.

The ids are one buffer of bytes of the model, so they are saved, loaded and digested with its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from seqrec.errors import InputError
from seqrec.text.item_text import KNOWN, TokenizedItem

_BETWEEN = "\n"  # ids have no control characters


class ItemIds(nn.Module):
    """`encoded`: uint8 [bytes], the ids in the order of their rows."""

    def __init__(self, size: int) -> None:
        """`size`: the bytes of all ids and the separators between them. The ids are loaded with the weights."""
        super().__init__()
        self.encoded: Tensor
        self.register_buffer("encoded", torch.zeros(size, dtype=torch.uint8))
        self._rows: dict[str, int] | None = None

    @classmethod
    def of(cls, item_ids: Sequence[str]) -> Self:
        """Raises InputError for a duplicate id."""
        if len(set(item_ids)) != len(item_ids):
            raise InputError("an item id occurs twice")
        text = _BETWEEN.join(item_ids).encode()
        ids = cls(len(text))
        ids.encoded.copy_(torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy()))
        return ids

    @property
    def size(self) -> int:
        return len(self.encoded)

    def row(self, item_id: str) -> int | None:
        """The row of an item; None for an unknown one."""
        if self._rows is None:  # made at the first use, since weights are loaded after the model is built
            text = bytes(self.encoded.cpu().numpy()).decode()
            self._rows = {known: row for row, known in enumerate(text.split(_BETWEEN))} if text else {}
        return self._rows.get(item_id)

    def token(self, item_id: str) -> TokenizedItem:
        """The item as one token of type KNOWN; without a token for an unknown item."""
        row = self.row(item_id)
        ids = [] if row is None else [row]
        return TokenizedItem(np.array(ids, np.int32), np.full(len(ids), KNOWN, np.uint8))


def known_row(item: TokenizedItem) -> int | None:
    """The row in the last token of an item, if its type is KNOWN."""
    return int(item.ids[-1]) if len(item.types) and item.types[-1] == KNOWN else None


def with_row(text: TokenizedItem, known: TokenizedItem) -> TokenizedItem:
    """The tokens of a text, followed by the token of its item (`ItemIds.token`)."""
    return TokenizedItem(np.concatenate([text.ids, known.ids]), np.concatenate([text.types, known.types]))


def without_row(item: TokenizedItem) -> TokenizedItem:
    """The tokens of the text alone."""
    return item if known_row(item) is None else TokenizedItem(item.ids[:-1], item.types[:-1])
