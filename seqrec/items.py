"""The module that is now `seqrec.data.items`, for scripts that import it by its former name."""

from seqrec.data.items import (
    History,
    Interactions,
    Item,
    make_item,
    read_interactions,
    read_items,
)

__all__ = ["History", "Interactions", "Item", "make_item", "read_interactions", "read_items"]
