"""Scripts that import `seqrec.items`, as it was called before its move, still run."""

from __future__ import annotations

import seqrec.data.items
import seqrec.items


def test_the_former_name_offers_the_same_readers() -> None:
    assert {name for name in seqrec.items.__all__ if not hasattr(seqrec.data.items, name)} == set()
    assert seqrec.items.read_interactions is seqrec.data.items.read_interactions
    assert seqrec.items.read_items is seqrec.data.items.read_items
