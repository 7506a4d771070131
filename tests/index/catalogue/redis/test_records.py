"""What a later version adds to records is ignored, or refused with the reason."""

from __future__ import annotations

import json

import pytest

from index.catalogue.redis.records import body_of, change_of, entry_of
from seqrec.errors import CatalogueError
from tests.contracts.catalogue_contract import entry


def test_fields_of_a_later_version_are_ignored() -> None:
    item = entry("desk")
    head, _, arrays = body_of(item).partition(b"\n")
    later = json.dumps({**json.loads(head), "expires": 5}).encode() + b"\n" + arrays
    read = entry_of(b"desk", later)
    assert (read.item, read.item_tower) == (item.item, item.item_tower)
    change = change_of(7, {b"time": b"1", b"op": b"put", b"item_id": b"desk", b"body": later, b"shop": b"b"})
    assert (change.seq, change.op, change.item_id) == (7, "put", "desk")


def test_a_change_of_a_later_version_is_refused() -> None:
    with pytest.raises(CatalogueError, match="change 7 of the log is 'merge', which this version does not know"):
        change_of(7, {b"time": b"1", b"op": b"merge", b"item_id": b"desk"})
