"""Cursors of pages: the ids of the items that were shown, compressed. Nothing is stored for them."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence

from seqrec.data.items import check_item_id
from seqrec.errors import InputError

MAX_SHOWN = 10_000
"""Items on all pages of one request."""
_MAX_BYTES = MAX_SHOWN * 260


def make_cursor(shown: Sequence[str]) -> str:
    text = json.dumps(list(shown), ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode())).decode().rstrip("=")


def read_cursor(cursor: str, field: str) -> list[str]:
    """The ids. Raises InputError for what `make_cursor` has not made, or for more than MAX_SHOWN."""
    try:
        packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        inflate = zlib.decompressobj()
        text = inflate.decompress(packed, _MAX_BYTES)  # bounded: a few bytes could inflate to gigabytes
        shown = json.loads(text)
        if not inflate.eof or not isinstance(shown, list):
            raise ValueError
    except (ValueError, zlib.error):
        raise InputError("not a cursor; take `next` of an answer as it is", field) from None
    if len(shown) > MAX_SHOWN:
        raise InputError(f"at most {MAX_SHOWN} items on all pages, not {len(shown)}", field)
    return [check_item_id(item_id, field) for item_id in shown]
