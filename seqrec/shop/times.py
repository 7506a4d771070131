"""Times of events in any spelling, as whole nanoseconds since 1970; the format is chosen for a column, not a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from dateutil import parser as dateutil_parser

from seqrec.data.timestamps import UNITS, count_units
from seqrec.errors import InputError
from seqrec.shop.values import take

SHORT = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
NULL = np.iinfo(np.int64).min
"""Instead of a time that is missing or cannot be read."""

_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}(?::?\d{2}(?::?\d{2}(?:[.,]\d{1,9})?)?)?\s?(?P<zone>Z|UTC|[+-]\d{2}(?::?\d{2})?)?)?"
)
_NUMERIC = re.compile(
    r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?:[ T,]+(\d{1,2}):(\d{2})(?::(\d{2})([.]\d+)?)?\s*([AaPp][Mm])?)?"
)


@dataclass(frozen=True)
class TimeFormat:
    """`name`: the setting time_format. `why` explains it; `doubt`: what the column leaves open."""

    name: str
    why: str
    doubt: str = ""


def find_format(sample: Sequence[pa.Array], rest: Callable[[], Iterable[pa.Array]]) -> TimeFormat | None:
    """The format of a column, from its first rows; `rest` gives all rows, read only where the first leave the order of
    day and month open. None if it is not a column of times."""
    kind = sample[0].type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = getattr(kind, "tz", None)
        return TimeFormat("datetime", f"typed {kind}", "" if zone else "it has no zone")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _of_numbers(np.concatenate([pc.drop_null(part).to_numpy(zero_copy_only=False) for part in sample]))
    if not pa.types.is_string(kind):
        return None
    texts = [text.strip() for part in sample for text in pc.drop_null(part).to_pylist()]
    texts = [text for text in texts if text][:5000]
    if not texts:
        return None
    numbers = [float(text) for text in texts if re.fullmatch(r"-?\d+(\.\d+)?", text)]
    if len(numbers) >= 0.9 * len(texts):  # the others are rejected with their place
        found = _of_numbers(np.array(numbers))
        return None if found is not None and found.name == "order" and len(numbers) < len(texts) else found
    iso = [_ISO.fullmatch(text) for text in texts]
    if sum(one is not None for one in iso) >= 0.9 * len(texts):
        zones = sum(1 for one in iso if one and one["zone"])
        doubt = "" if zones == len(texts) else "some have no zone" if zones else "they have no zone"
        return TimeFormat("iso", f"ISO 8601, such as {texts[0]}", doubt)
    numeric = [_NUMERIC.fullmatch(text) for text in texts]
    if sum(one is not None for one in numeric) >= 0.9 * len(texts):
        return _of_dates(texts, rest)
    if sum(text.isdigit() and len(text) != 8 for text in texts) > 0.1 * len(texts):
        return None  # a lone number is the day of a date to dateutil
    moments = [moment for text in texts[:200] if (moment := _moment(text, False)) is not None]
    if len(moments) >= 0.9 * min(200, len(texts)):
        zones = sum(moment.tzinfo is not None for moment in moments)
        doubt = "" if zones == len(moments) else "some have no zone" if zones else "they have no zone"
        return TimeFormat("dayfirst", f"written out, such as {texts[0]}", doubt)
    return None


def _of_numbers(values: npt.NDArray[Any]) -> TimeFormat | None:
    finite = values[np.isfinite(values)]
    if len(finite) < 0.9 * len(values) or not len(finite):
        return None
    values = finite
    counts = count_units(np.asarray(values, dtype=np.float64))
    most = max(SHORT, key=lambda short: counts.get(SHORT[short], 0))
    if sum(counts.get(unit, 0) for unit in SHORT.values()) >= 0.9 * len(values):
        found = counts[SHORT[most]]
        why = f"numbers of the size of {SHORT[most]} since 1970, such as {values[0]:.0f}"
        others = ", ".join(f"{counts[unit]:,} of {unit}" for unit in SHORT.values() if counts.get(unit, 0))
        return TimeFormat(most, why if found == len(values) else f"{why}; of the first numbers {others}")
    if ((values > 20_000) & (values < 80_000)).all() and (values != np.floor(values)).any():
        return TimeFormat("excel", f"days since 1900, as Excel counts, such as {values[0]}", "they have no zone")
    if (values == np.floor(values)).all() and (values >= 0).all():
        return TimeFormat("order", "running numbers, not times", "the time between events is unknown")
    return None


def _of_dates(texts: Sequence[str], rest: Callable[[], Iterable[pa.Array]]) -> TimeFormat:
    """Day-first or month-first: a number above 12 in the column decides."""
    first = second = 0
    for texts_of in _chunks(texts, rest):
        extracted = pc.extract_regex(texts_of, r"^\s*(?P<a>\d{1,2})[./-](?P<b>\d{1,2})[./-]")
        a, b = (pc.max(pc.cast(pc.struct_field(extracted, name), pa.int32())).as_py() or 0 for name in "ab")
        first, second = max(first, a), max(second, b)
        if max(first, second) > 12:
            break
    match = next(one for text in texts if (one := _NUMERIC.fullmatch(text)))
    separator, year, hour, half = match[2], match[4], match[5], match[9]
    day_first = first > 12 or (second <= 12 and separator == ".") or (second <= 12 and not half)
    date = ("%d{0}%m{0}" if day_first else "%m{0}%d{0}").format(separator) + ("%Y" if len(year) == 4 else "%y")
    clock = ""
    if hour is not None:
        clock = (" %I:%M" if half else " %H:%M") + (":%S" if match[7] else "") + (" %p" if half else "")
    name = date + clock
    regular = all((_NUMERIC.fullmatch(text) and " " in text.strip()) or not clock for text in texts)
    if match[8] or (clock and not regular) or len({_shape(text) for text in texts}) > 1 or "," in texts[0]:
        name = "dayfirst" if day_first else "monthfirst"
    which = "day" if day_first else "month"
    if max(first, second) > 12:
        return TimeFormat(name, f"such as {texts[0]}; the {which} comes first, as a number above 12 shows", "no zone")
    return TimeFormat(
        name,
        f"such as {texts[0]}",
        f"no number above 12 shows whether day or month comes first; read as {which} first. No zone",
    )


def _shape(text: str) -> tuple[int, int, bool]:
    return text.count(":"), len(text.split()), text.strip()[-1:].lower() == "m"


def _chunks(texts: Sequence[str], rest: Callable[[], Iterable[pa.Array]]) -> Iterable[pa.Array]:
    yield pa.array(texts)
    yield from rest()


class TimeReader:
    """Converts columns of one format. Raises InputError for an unknown zone or format."""

    def __init__(self, format: str, zone: str) -> None:
        self.format, self.zone = format, zone
        try:
            self._zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise InputError(f"{zone!r} is not a time zone, such as Europe/Berlin or UTC", "events.zone") from None
        known = (*SHORT, "order", "excel", "iso", "datetime", "dayfirst", "monthfirst")
        if format not in known and "%" not in format:
            raise InputError(
                f"{format!r} is none of {', '.join(known)}, nor a format such as %d.%m.%Y", "events.time_format"
            )

    def read(self, column: pa.Array) -> npt.NDArray[np.int64]:
        """Nanoseconds since 1970 in UTC (for "order": the numbers), NULL for what cannot be read. [n]"""
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            times = column.cast(pa.timestamp("ns", getattr(column.type, "tz", None)), safe=False)
            return self._nanoseconds(times)
        if self.format in SHORT or self.format == "order":
            return self._numbers(column)
        if self.format == "excel":
            return self._days(column)
        if not pa.types.is_string(column.type):
            column = column.cast(pa.string())
        column = pc.utf8_trim_whitespace(column)
        if self.format == "iso":
            return self._iso(column)
        if "%" in self.format:
            parsed = pc.strptime(column, format=self.format, unit="s", error_is_null=True)
            return self._nanoseconds(parsed.cast(pa.timestamp("ns", getattr(parsed.type, "tz", None)), safe=False))
        return self._any_spelling(column)

    def _numbers(self, column: pa.Array) -> npt.NDArray[np.int64]:
        factor = 1 if self.format == "order" else 10**9 // UNITS[SHORT[self.format]]
        if pa.types.is_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            whole = pc.fill_null(pc.match_substring_regex(column, r"^-?(\d{1,18}|[1-8]\d{18})$"), False)
            number = pc.fill_null(pc.match_substring_regex(column, r"^-?(\d{1,18}|[1-8]\d{18})(\.\d*)?$"), False)
            if not pc.all(whole).as_py() and pc.any(pc.and_not(number, whole)).as_py():
                column = pc.if_else(number, column, None).cast(pa.float64())
            else:
                column = pc.if_else(whole, column, None).cast(pa.int64())
        if pa.types.is_floating(column.type):
            values = column.to_numpy(zero_copy_only=False)
            good = np.isfinite(values) & (np.abs(values * factor) < 9.2e18)
            micro = np.round(np.where(good, values, 0) * (factor if factor < 1000 else factor / 1000)).astype(np.int64)
            return np.where(good, micro if factor < 1000 else micro * 1000, NULL)
        whole_numbers = column.cast(pa.int64())
        values = pc.fill_null(whole_numbers, 0).to_numpy(zero_copy_only=False)
        good = ~whole_numbers.is_null().to_numpy(zero_copy_only=False) & (np.abs(values) < 9.2e18 / factor)
        return np.where(good, np.where(good, values, 0) * factor, NULL)

    def _days(self, column: pa.Array) -> npt.NDArray[np.int64]:
        """Of days since 1899-12-30, to the second."""
        if pa.types.is_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            number = pc.match_substring_regex(column, r"^\d{1,6}(\.\d*)?$")
            column = pc.if_else(number, column, None)
        seconds = pc.round(pc.multiply(pc.subtract(column.cast(pa.float64()), 25_569.0), 86_400.0))
        return self._nanoseconds(seconds.cast(pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp("ns"), safe=False))

    def _iso(self, column: pa.Array) -> npt.NDArray[np.int64]:
        naive, zoned = pa.timestamp("us"), pa.timestamp("us", "UTC")
        for kind in (zoned, naive):
            try:
                return self._nanoseconds(column.cast(kind).cast(pa.timestamp("ns", kind.tz), safe=False))
            except pa.ArrowInvalid:
                continue
        column = pc.replace_substring_regex(column, r" ?UTC$", "Z")
        column = pc.replace_substring_regex(column, r"(\d) ([+-]\d\d:?\d\d)$", r"\1\2")
        with_zone = pc.fill_null(pc.match_substring_regex(column, r"\d(Z|[+-]\d{2}:?\d{2}|[+-]\d{2})$"), False)
        has_clock = pc.fill_null(pc.match_substring(column, ":"), False)
        with_zone = pc.and_(with_zone, has_clock)
        good = pc.fill_null(pc.match_substring_regex(column, f"^{_ISO.pattern.replace('?P<zone>', '?:')}$"), False)
        times = np.full(len(column), NULL, dtype=np.int64)
        for mask, kind in ((pc.and_(good, with_zone), zoned), (pc.and_not(good, with_zone), naive)):
            chosen = mask.to_numpy(zero_copy_only=False)
            if chosen.any():
                times[chosen] = self._strict_or_single(column.filter(mask), kind)
        return times

    def _strict_or_single(self, column: pa.Array, kind: pa.TimestampType) -> npt.NDArray[np.int64]:
        try:
            return self._nanoseconds(column.cast(kind).cast(pa.timestamp("ns", kind.tz), safe=False))
        except pa.ArrowInvalid:
            return self._any_spelling(column)

    def _any_spelling(self, column: pa.Array) -> npt.NDArray[np.int64]:
        """Each distinct text once."""
        encoded = column.dictionary_encode()
        month_first = self.format == "monthfirst"
        read = [
            _dateutil(text, not month_first and self.format != "iso", self._zone)
            for text in encoded.dictionary.to_pylist()
        ]
        values = np.array([NULL if one is None else one for one in [*read, None]], dtype=np.int64)
        return take(values, encoded.indices)

    def _nanoseconds(self, times: pa.Array) -> npt.NDArray[np.int64]:
        if times.type.tz is None and self.zone != "UTC":
            times = pc.assume_timezone(times, self.zone, ambiguous="earliest", nonexistent="latest")
        whole: npt.NDArray[np.int64] = pc.fill_null(times.cast(pa.int64()), NULL).to_numpy(zero_copy_only=False)
        return whole


_ZONES = {"WET": 0, "WEST": 1, "BST": 1, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2, "EET": 2, "EEST": 3, "MSK": 3,
          "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6,
          "PST": -8, "PDT": -7}  # fmt: skip
"""Hours ahead of UTC. Those of America as in e-mails (RFC 2822)."""


def _zone_of(name: str | None, offset: int | None) -> tzinfo | None:
    if offset is None and name is not None and name not in _ZONES:
        raise ValueError(f"unknown zone {name}")
    if offset is None and name is None:
        return None
    return timezone(timedelta(hours=_ZONES[name or ""]) if offset is None else timedelta(seconds=offset))


def _moment(text: str, day_first: bool) -> datetime | None:
    """With its zone, if it names one. None for what is no time, or has a zone that nobody knows."""
    year_first = re.match(r"\s*\d{4}[^\d:]", text)  # 2021-01-02 is no second of a month in any country
    try:
        moment: datetime = dateutil_parser.parse(text, dayfirst=day_first and not year_first, tzinfos=_zone_of)
    except (ValueError, OverflowError):
        return None
    return moment


def _dateutil(text: str, day_first: bool, zone: ZoneInfo) -> int | None:
    moment = _moment(text, day_first)
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    nanoseconds: int = round(moment.timestamp() * 1_000_000) * 1000
    return nanoseconds if abs(nanoseconds) < 2**63 else None  # years before 1678 or after 2262


def coarsest(times: npt.NDArray[np.int64]) -> tuple[str, npt.NDArray[np.int64]]:
    """Nanoseconds in the coarsest unit that loses nothing: its short name, and the numbers."""
    for short, unit in SHORT.items():
        each = 10**9 // UNITS[unit]
        if not (times % each).any():
            return short, times // each
    return "ns", times
