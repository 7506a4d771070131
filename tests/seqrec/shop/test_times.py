"""Times of every spelling are the same moment; a column decides its format."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from seqrec.errors import InputError
from seqrec.shop.times import NULL, TimeFormat, TimeReader, coarsest, find_format

MOMENT = int(datetime(2021, 1, 2, 10, 30, tzinfo=UTC).timestamp())


def guess(*values: object, rest: tuple[object, ...] = ()) -> TimeFormat | None:
    return find_format([pa.array(values)], lambda: [pa.array(rest or values)])


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("2021-01-02T10:30:00Z", "iso"),
        ("2021-01-02 11:30:00+01:00", "iso"),
        ("2021-01-02T11:30:00.000+0100", "iso"),
        ("2021-01-02 10:30:00 UTC", "iso"),
        ("2021-01-02 10:30", "iso"),
        ("1609583400", "s"),
        ("1609583400.0", "s"),
        ("1609583400000", "ms"),
        ("1609583400000000", "us"),
        ("1609583400000000000", "ns"),
        ("02.01.2021 10:30", "%d.%m.%Y %H:%M"),
        ("02/01/2021 10:30:00", "%d/%m/%Y %H:%M:%S"),
        ("02-01-21 10:30", "%d-%m-%y %H:%M"),
        ("2 Jan 2021 10:30", "dayfirst"),
        ("Sat, 2 Jan 2021 10:30:00 +0000", "dayfirst"),
        ("2021-01-02 11:30:00 CET", "dayfirst"),
        ("2 Jan 2021 05:30 EST", "dayfirst"),
    ],
)
def test_every_spelling_of_one_moment(text: str, format: str) -> None:
    found = guess(text)
    assert found is not None
    assert found.name == format
    times = TimeReader(found.name, "UTC").read(pa.array([text, f" {text} ", "rubbish", None]))
    assert times.tolist() == [MOMENT * 10**9, MOMENT * 10**9, NULL, NULL]


def test_typed_columns() -> None:
    for kind in (pa.timestamp("s"), pa.timestamp("ns", "Europe/Berlin")):
        column = pa.array([MOMENT, None]).cast(pa.timestamp("s")).cast(kind)
        found = find_format([column], list)
        assert found is not None
        assert found.name == "datetime"
        assert TimeReader("datetime", "UTC").read(column).tolist()[1] == NULL
    numbers = TimeReader("s", "UTC").read(pa.array([MOMENT + 0.5, None]))
    assert numbers.tolist() == [MOMENT * 10**9 + 500_000_000, NULL]
    assert TimeReader("order", "UTC").read(pa.array([7, None])).tolist() == [7, NULL]


def test_times_without_a_zone_are_of_the_shop_s() -> None:
    reader = TimeReader("iso", "Europe/Berlin")
    summer, winter, both, gap = (
        "2021-07-01 12:00",
        "2021-01-01 12:00",
        "2021-10-31 02:30",
        "2021-03-28 02:30",
    )
    times = reader.read(pa.array([summer, winter, both, gap]))
    assert [str(np.datetime64(int(time), "ns"))[:16] for time in times[:3]] == [
        "2021-07-01T10:00",
        "2021-01-01T11:00",
        "2021-10-31T00:30",
    ]
    mixed = reader.read(pa.array([summer, "2021-07-01T12:00:00Z"]))
    assert mixed[1] - mixed[0] == 2 * 3600 * 10**9


def test_the_whole_column_decides_between_day_and_month() -> None:
    found = guess("01/02/2021", rest=("01/02/2021", "03/25/2021"))
    assert found is not None
    assert found.name == "%m/%d/%Y"
    assert "the month comes first" in found.why
    open_ = guess("01/02/2021")
    assert open_ is not None
    assert "no number above 12 shows whether day or month comes first" in open_.doubt
    american = guess("01/02/2021 1:05 PM")
    assert american is not None
    assert american.name == "%m/%d/%Y %I:%M %p"


def test_columns_that_are_no_times() -> None:
    assert guess("red", "blue") is None
    assert guess("12.50", "3.99") is None
    assert guess(0.5, 1.25) is None
    order = guess(0, 1, 2)
    assert order is not None
    assert order.name == "order"


def test_the_coarsest_unit_that_loses_nothing() -> None:
    assert coarsest(np.array([3 * 10**9]))[0] == "s"
    unit, times = coarsest(np.array([3 * 10**9, 5 * 10**6]))
    assert (unit, times.tolist()) == ("ms", [3000, 5])


def test_settings_that_are_none() -> None:
    with pytest.raises(InputError, match=r"events\.zone: 'Berlin' is not a time zone, such as Europe/Berlin"):
        TimeReader("iso", "Berlin")
    with pytest.raises(InputError, match=r"events\.time_format: 'german' is none of s, ms"):
        TimeReader("german", "UTC")


def test_a_column_of_numbers_with_a_word_has_no_times() -> None:
    numbers = pa.array([str(number) for number in range(300)] + ["Total"])
    assert find_format([numbers], list) is None


def test_years_beyond_what_nanoseconds_can_count() -> None:
    read = TimeReader("dayfirst", "UTC").read(pa.array(["1 May 2024", "1 May 9999", "1 May 1500"]))
    assert read.tolist() == [1_714_521_600 * 10**9, NULL, NULL]


def test_days_as_excel_counts_them() -> None:
    texts = pa.array(["44000.5", "44001", None, "soon"])
    assert find_format([texts.slice(0, 2)], list) == TimeFormat(
        "excel", "days since 1900, as Excel counts, such as 44000.5", "they have no zone"
    )
    noon = int(datetime(2020, 6, 18, 12, tzinfo=UTC).timestamp()) * 10**9
    assert TimeReader("excel", "UTC").read(texts).tolist() == [noon, noon + 43_200 * 10**9, NULL, NULL]
    assert TimeReader("excel", "Europe/Berlin").read(pa.array([44000.5])).tolist() == [noon - 7_200 * 10**9]


def test_a_few_values_that_are_no_numbers_do_not_lose_the_times() -> None:
    texts = [str(MOMENT + n) for n in range(50)]
    for odd in ("nan", "N/A", "inf", "-"):
        found = guess(*texts, odd)
        assert found is not None
        assert found.name == "s"
        assert TimeReader("s", "UTC").read(pa.array([odd])).tolist() == [NULL]
    found = guess(*[float(text) for text in texts], float("nan"))
    assert found is not None
    assert found.name == "s"


def test_seconds_and_milliseconds_in_one_column_are_named() -> None:
    found = guess(*[str(MOMENT + n) for n in range(30)], *[str((MOMENT + n) * 1000) for n in range(20)])
    assert found is not None
    assert (found.name, found.why.partition("; ")[2]) == ("s", "of the first numbers 30 of seconds, 20 of milliseconds")
    assert TimeReader("s", "UTC").read(pa.array([str(MOMENT * 1000)])).tolist() == [NULL]


def test_a_zone_that_nobody_knows_is_no_zone() -> None:
    assert TimeReader("dayfirst", "UTC").read(pa.array(["2 Jan 2021 10:30 XYZT"])).tolist() == [NULL]
    named = guess("2 Jan 2021 10:30 CET", "3 Jan 2021 10:30 UTC")
    assert named is not None
    assert not named.doubt
    mixed = guess("2 Jan 2021 10:30 CET", "3 Jan 2021 10:30")
    assert mixed is not None
    assert mixed.doubt == "some have no zone"
