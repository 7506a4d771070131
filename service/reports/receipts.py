"""Ids of recommendations: signed and self-contained, so that nothing is stored for them.

An id is url-safe base64 of: a format byte, the time of the answer (4 bytes), random bytes (8), how many items earlier
pages had (2), the length of what made the answer (2) and that, 5 bytes for each item, and 16 bytes of an HMAC-SHA256 of
all this. An item is a checksum of its id and a byte that says how it came there: 10 items make an id of about 250
characters. Where places were filled at random, what made the answer has the different propensities at its end, and the
byte of such an item says which one is its own (from 1; 0: none). An id reveals its experiment to whoever decodes it; it
contains no user.

Hosts of one store may have different versions. What a later version adds to what made the answer has the form
`name=value` and is ignored, a source that is not known here counts as `unknown`, and another format is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from index.catalogue.outcomes import Attribution, Slot
from seqrec.errors import InputError
from service.live.hybrid import PARTS

MAX_ITEMS = 1000
"""Of an answer, the first ones; later ones are in no report."""
MAX_CHARACTERS = 7500
UNKNOWN = "unknown"
"""The source of items whose source only a later version knows."""
_FORMAT = 1
_HEAD = struct.Struct(">BI8sHH")
_ITEM = struct.Struct(">IB")
_SIGNATURE = 16
SOURCES = (
    *("model", "similar", "trending", "popular", "pinned", "explored"),
    *(f"model:{part}" for part in PARTS),  # the part of a hybrid's score that added most
)
_COLD = 0x80
_SOURCE = 0x0F
_PROPENSITY_SHIFT, _MOST_PROPENSITIES = 4, 7
_AHEAD = 300
"""Seconds that clocks of hosts may differ."""


class Listed(NamedTuple):
    """An item of an answer. `source`: one of `SOURCES`.

    `propensity`: of a place that was filled at random, how likely it was to get this item.
    """

    item_id: str
    source: str
    cold: bool
    propensity: float | None = None


@dataclass(frozen=True)
class Receipt:
    """The content of an id."""

    recommendation: bytes
    slot: Slot
    shown_before: int
    items: bytes
    propensities: tuple[float, ...] = ()  # those that there are

    @property
    def time(self) -> int:
        """Unix seconds."""
        return int.from_bytes(self.recommendation[:4])

    def attribution(self, item_id: str, field: str) -> Attribution:
        """Of an item of the answer. Raises InputError for any other."""
        row, flags = self._find(item_id, field)
        number = flags & _SOURCE
        position, source = self.shown_before + row + 1, SOURCES[number] if number < len(SOURCES) else UNKNOWN
        propensity = self._propensity(flags)
        return Attribution(self.recommendation, self.slot, position, source, bool(flags & _COLD), propensity)

    def propensity(self, item_id: str, field: str = "recommendation_id") -> float | None:
        """How likely its place was to get this item, given the places before; None for a place that was not random.

        Raises InputError for an item that is not in the answer.
        """
        _, flags = self._find(item_id, field)
        return self._propensity(flags)

    def _propensity(self, flags: int) -> float | None:
        number = (flags & ~_COLD) >> _PROPENSITY_SHIFT
        return self.propensities[number - 1] if number else None

    def _find(self, item_id: str, field: str) -> tuple[int, int]:
        wanted = zlib.crc32(item_id.encode())
        for row, (checksum, flags) in enumerate(_ITEM.iter_unpack(self.items)):
            if checksum == wanted:
                return row, flags
        raise InputError(f"{item_id!r} is not among the items of this recommendation_id", field)


def make_receipt(
    secret: bytes, slot: Slot, shown_before: int, items: Iterable[Listed], now: float | None = None
) -> str:
    """The id of an answer with these items, best first."""
    listed = list(islice(items, MAX_ITEMS))
    propensities = list(dict.fromkeys(item.propensity for item in listed if item.propensity is not None))
    assert len(propensities) <= _MOST_PROPENSITIES
    made_of = (slot.placement, str(slot.version), slot.experiment, slot.variant, slot.model, slot.snapshot)
    made_by = "|".join((*made_of, *(f"{one:.9g}" for one in propensities))).encode()
    when = int(time.time() if now is None else now)
    packed = bytearray(_HEAD.pack(_FORMAT, when, os.urandom(8), min(shown_before, 0xFFFF), len(made_by)) + made_by)
    for item in listed:
        number = 0 if item.propensity is None else propensities.index(item.propensity) + 1
        flags = SOURCES.index(item.source) | number << _PROPENSITY_SHIFT | _COLD * item.cold
        packed += _ITEM.pack(zlib.crc32(item.item_id.encode()), flags)
    return base64.urlsafe_b64encode(packed + _signature(secret, packed)).decode().rstrip("=")


def read_receipt(secret: bytes, text: str, max_age: float, field: str, now: float | None = None) -> Receipt:
    """Raises InputError for an id that this service did not make, and one older than `max_age` seconds."""
    try:
        packed = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error):
        packed = b""
    content, signature = packed[:-_SIGNATURE], packed[-_SIGNATURE:]
    if len(content) < _HEAD.size or not hmac.compare_digest(signature, _signature(secret, content)):
        raise InputError("not an id of this service; send recommendation_id of an answer as it is", field)
    format_, when, _, shown_before, length = _HEAD.unpack_from(content)
    if format_ != _FORMAT:
        raise InputError(
            f"an id of format {format_}, which another version of the service made; this one reads format {_FORMAT}. "
            "Run the same version on all hosts",
            field,
        )
    age = (time.time() if now is None else now) - when
    if age > max_age:
        raise InputError(
            f"the recommendation is {age / 86_400:.1f} days old; events count for {max_age / 86_400:g} days "
            "(SEQREC_ATTRIBUTION_DAYS). Send the event without it",
            field,
        )
    if age < -_AHEAD:
        raise InputError("the recommendation is from the future; check the clocks of the hosts", field)
    placement, version, *others = content[_HEAD.size : _HEAD.size + length].decode().split("|")
    slot = Slot(placement, int(version), *others[:4])
    propensities = tuple(float(one) for one in others[4:] if "=" not in one)
    return Receipt(content[1:13], slot, shown_before, content[_HEAD.size + length :], propensities)


def _signature(secret: bytes, content: bytes | bytearray) -> bytes:
    return hmac.digest(secret, content, hashlib.sha256)[:_SIGNATURE]
