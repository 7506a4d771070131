"""Items with equal text: a text model cannot distinguish them, so they are encoded once and tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from seqrec.text.item_text import ItemTokens
from training.data.dataset import Rows


@dataclass(frozen=True, eq=False)
class UniqueTexts:
    """`rows` [t]: the first item of each unique text. `text_of` [n]: the text number of each item."""

    rows: Rows
    text_of: Rows

    @classmethod
    def of(cls, tokens: ItemTokens) -> Self:
        first: dict[bytes, int] = {}
        rows: list[int] = []
        text_of = np.empty(len(tokens), dtype=np.int64)
        for row, item in enumerate(tokens):
            text = first.setdefault(item.ids.tobytes() + item.types.tobytes(), len(rows))
            if text == len(rows):
                rows.append(row)
            text_of[row] = text
        return cls(np.array(rows, dtype=np.int64), text_of)

    def __len__(self) -> int:
        return len(self.rows)
