"""Cursors of pages. Nothing is stored for them.

Those of recommendations are the ids of the items that were shown, compressed; those of the catalogue a place in it.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Sequence

from seqrec.data.items import check_item_id
from seqrec.errors import InputError
from service.engine.browse import Place

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
        raise _no_cursor(field) from None
    if len(shown) > MAX_SHOWN:
        raise InputError(f"at most {MAX_SHOWN} items on all pages, not {len(shown)}", field)
    return [check_item_id(item_id, field) for item_id in shown]


def place_cursor(place: Place) -> str:
    text = json.dumps([place.time, place.events, place.item_id], ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_place(cursor: str) -> Place:
    """Raises InputError for what `place_cursor` has not made."""
    try:
        time, events, item_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if math.isfinite(time) and math.isfinite(events):
            return Place(float(time), float(events), check_item_id(item_id, "cursor"))
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise _no_cursor("cursor")


def _no_cursor(field: str) -> InputError:
    return InputError("not a cursor; take `next` of an answer as it is", field)
