"""What a broken items or interactions file is answered with, word for word where the words are what the user needs."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.items import (
    MAX_ATTRIBUTE_BYTES,
    MAX_ATTRIBUTES,
    Item,
    attribute_text,
    check_attributes,
    check_item_id,
    make_item,
    read_interactions,
    read_items,
)
from seqrec.errors import FileFormatError, InputError

GOOD = '{"item_id": "a", "attributes": {"title": "Oak desk"}}'


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines))
    return path


def line_of(item_id: object, attributes: object = None, **more: object) -> str:
    return json.dumps({"item_id": item_id, "attributes": {} if attributes is None else attributes, **more})


# Items: what is read


def test_items_come_in_file_order_with_their_attributes_in_theirs(tmp_path: Path) -> None:
    path = write(
        tmp_path / "items.jsonl",
        '{"item_id": "b", "attributes": {"title": "Lamp", "price": 3.5, "tags": ["x", "y"], "brand": null}}',
        "",
        '{"available": false, "attributes": {}, "item_id": "a"}',
    )
    assert read_items(path) == [
        Item("b", {"title": "Lamp", "price": 3.5, "tags": ("x", "y")}),
        Item("a", {}, available=False),
    ]
    assert list(read_items(path)[0].attributes) == ["title", "price", "tags"]


@pytest.mark.parametrize(
    "title",
    [
        "🫖 tea for two 👩‍🍳",
        "שולחן עבודה",
        "مكتب خشبي",
        "机",
        "e\u0301clair",
        "a\u202eb\u2066c",
        "tab\there,\nand",
    ],
)
def test_any_text_is_a_value(tmp_path: Path, title: str) -> None:
    path = write(tmp_path / "items.jsonl", json.dumps({"item_id": title[:1], "attributes": {"title": title}}))
    assert read_items(path) == [Item(title[:1], {"title": title})]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf%b\n", b"%b\r\n", b"\n\r\n  \n%b", b"\xef\xbb\xbf%b\r\n\r\n"])
def test_a_bom_line_endings_and_empty_lines_do_no_harm(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "items.jsonl").write_bytes(content % GOOD.encode())
    assert read_items(tmp_path / "items.jsonl") == [Item("a", {"title": "Oak desk"})]


def test_gz_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + GOOD.encode()))
    assert read_items(tmp_path / "items.jsonl.gz") == [Item("a", {"title": "Oak desk"})]


@pytest.mark.slow
def test_the_bundled_data_is_whole(online_retail: Path) -> None:
    items = read_items(online_retail / "items.jsonl.gz")
    events = read_interactions(online_retail / "interactions.csv.gz", {item.item_id for item in items})
    assert (len(items), len(events), len(set(events.user_ids))) == (3145, 264510, 4074)
    assert events.timestamps.dtype == np.int64


# Items: what is refused

BROKEN = {
    '{"item_id": "b", "attributes": {"title": "Oak': "not JSON",
    "[1, 2]": "a line is a JSON object, not a list",
    "null": "a line is a JSON object, not null",
    '"text"': "a line is a JSON object, not a string",
    '{"item_id": "b"}': "item_id or attributes is missing",
    '{"attributes": {}}': "item_id or attributes is missing",
    '{"item_id": "b", "attributes": {}, "price": 3}': "unknown field 'price'; put it into attributes",
    '{"item_id": null, "attributes": {}}': "item_id: an item id is a string, not null",
    '{"item_id": 7, "attributes": {}}': "item_id: an item id is a string, not a number",
    '{"item_id": true, "attributes": {}}': "item_id: an item id is a string, not true or false",
    '{"item_id": ["b"], "attributes": {}}': "item_id: an item id is a string, not a list",
    '{"item_id": "", "attributes": {}}': "1 to 256 bytes of UTF-8, this one has 0",
    line_of("é" * 129): "1 to 256 bytes of UTF-8, this one has 258",
    line_of("a\x00b"): "no control characters, this one has U+0000",
    line_of("a\nb"): "no control characters, this one has U+000A",
    line_of("a\x85b"): "no control characters, this one has U+0085",
    '{"item_id": "\\ud800", "attributes": {}}': "item_id: not valid Unicode (a lone surrogate)",
    '{"item_id": "b", "attributes": null}': "attributes: attributes are an object of names and values, not null",
    '{"item_id": "b", "attributes": ["title"]}': "attributes: attributes are an object of names and values, not a list",
    line_of("b", {"in stock": True}): "attributes.in stock: a value is a string, a number or a list of strings, not t",
    line_of("b", {"size": {"cm": 3}}): "attributes.size: a value is a string, a number or a list of strings, not an",
    line_of("b", {"tags": ["x", 1]}): "attributes.tags: a list has only strings",
    line_of("b", {"tags": [None]}): "attributes.tags: a list has only strings",
    line_of("b", {"": "x"}): "attributes: an attribute's name is a string that is not empty",
    '{"item_id": "b", "attributes": {"price": NaN}}': "NaN is not JSON; leave the attribute out",
    '{"item_id": "b", "attributes": {"price": -Infinity}}': "-Infinity is not JSON; leave the attribute out",
    '{"item_id": "b", "attributes": {"price": 1e999}}': "attributes.price: inf is not a number that can be stored",
    '{"item_id": "b", "attributes": {"title": "\\udc80"}}': "not valid Unicode (a lone surrogate)",
    line_of("b", {f"name {i}": "" for i in range(MAX_ATTRIBUTES + 1)}): "at most 64 attributes, this one has 65",
    line_of("b", {"title": "x" * MAX_ATTRIBUTE_BYTES}): "attributes.title: an attribute has at most 8192 bytes with",
    line_of("b", {}, available="yes"): "available: true or false, not a string",
    line_of("b", {}, available=None): "available: true or false, not null",
    "[" * 100_000: "not JSON",
    '{"item_id": "b", "attributes": {"n": ' + "1" * 5000 + "}}": "not JSON",
    GOOD: "item 'a' occurs already in line 1",
}


@pytest.mark.parametrize(("line", "reason"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_broken_line_is_named_with_file_number_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "items.jsonl", GOOD, "", line, line_of("z"))
    with pytest.raises(FileFormatError) as caught:
        read_items(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert reason in str(caught.value)
    assert (caught.value.path, caught.value.line) == (path, 3)


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_can_be_skipped(tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "items.jsonl", GOOD, line, line_of("z"))
    with caplog.at_level(logging.WARNING):
        assert [item.item_id for item in read_items(path, on_error="skip")] == ["a", "z"]
    assert f"skipped {path}, line 2: " in caplog.text
    assert f"skipped 1 lines of {path}" in caplog.text


def test_skipping_counts_all_and_shows_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "items.jsonl", GOOD, *["nonsense"] * 40)
    with caplog.at_level(logging.WARNING):
        assert len(read_items(path, on_error="skip")) == 1
    assert f"skipped 40 lines of {path}" in caplog.text
    assert len(caplog.records) == 6


@pytest.mark.parametrize("bytes_", [b"caf\xe9", b"\xff\xfe", b"\x80abc"])
def test_damaged_characters_in_utf8_are_an_error_of_their_line(tmp_path: Path, bytes_: bytes) -> None:
    broken = b'{"item_id": "b", "attributes": {"title": "' + bytes_ + b'"}}'
    path = write(tmp_path / "items.jsonl", GOOD, broken, line_of("z").replace("z", "\u05d0"))
    with pytest.raises(FileFormatError, match=r"line 2: .*not valid Unicode"):
        read_items(path)
    assert len(read_items(path, on_error="skip")) == 2


@pytest.mark.parametrize("read", [read_items, read_interactions])
def test_a_file_that_is_not_there(tmp_path: Path, read: Any) -> None:
    with pytest.raises(FileFormatError, match=r"nowhere\.csv: no such file"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(FileFormatError, match="a directory, not a file"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_file_without_items(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "items.jsonl").write_bytes(content)
    with pytest.raises(FileFormatError, match="no items in it"):
        read_items(tmp_path / "items.jsonl")


def test_a_gz_that_was_cut_short_is_refused_also_when_skipping(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl.gz"
    whole = gzip.compress("\n".join(line_of(str(i), {"title": str(i**9)}) for i in range(5000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    for on_error in ("raise", "skip"):
        with pytest.raises(FileFormatError, match=r"items\.jsonl\.gz, line \d+: cannot be read on"):
            read_items(path, on_error)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00garbage that is no deflate stream at all"])
def test_a_gz_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "items.jsonl.gz").write_bytes(content)
    with pytest.raises(FileFormatError, match="cannot be read on"):
        read_items(tmp_path / "items.jsonl.gz")


# Values


def test_limits_hold_to_the_byte() -> None:
    assert check_item_id("é" * 128) == "é" * 128
    assert check_item_id("a/b c%2F..") == "a/b c%2F.."
    check_attributes({"title": "x" * (MAX_ATTRIBUTE_BYTES - 5)})
    with pytest.raises(InputError):
        check_attributes({"title": "x" * (MAX_ATTRIBUTE_BYTES - 4)})
    check_attributes({str(i): "" for i in range(MAX_ATTRIBUTES)})


def test_the_field_of_an_error_is_a_path() -> None:
    with pytest.raises(InputError) as caught:
        make_item("a", {"tags": [1]}, field="items[3].")
    assert caught.value.field == "items[3].attributes.tags"
    assert caught.value.reason == "a list has only strings"


@pytest.mark.parametrize(
    ("value", "text"),
    [("Oak", "Oak"), (3, "3"), (3.0, "3"), (2.55, "2.55"), (-0.5, "-0.5"), (1e20, "1e+20"), (("a", "b"), "a, b")],
)
def test_a_value_as_text(value: Any, text: str) -> None:
    assert attribute_text(value) == text


def test_whole_numbers_fit_64_bits() -> None:
    assert check_attributes({"ean": 2**63 - 1, "floor": -(2**63)}) == {"ean": 2**63 - 1, "floor": -(2**63)}
    for value in (2**63, -(2**63) - 1, 10**5000):
        with pytest.raises(InputError, match=r"attributes\.ean: a whole number that does not fit 64 bits"):
            check_attributes({"ean": value})


# Interactions

HEADER = "user_id,item_id,timestamp"


def test_events_come_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", HEADER, "u,b,2", 'v,"a,1",1', "", "u,a,2")
    events = read_interactions(path)
    assert (events.user_ids, events.item_ids) == (["u", "v", "u"], ["b", "a,1", "a"])
    assert events.timestamps.tolist() == [2, 1, 2]
    assert len(events) == 3


def test_columns_may_come_in_any_order_among_others(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", "rating,timestamp,user_id,item_id", "5,1.5,u,a")
    events = read_interactions(path)
    assert (events.user_ids, events.item_ids, events.timestamps.tolist()) == (["u"], ["a"], [1.5])


def test_nanoseconds_keep_their_end(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", HEADER, "u,a,1700000000000000001", "u,b,1700000000000000002")
    assert np.diff(read_interactions(path).timestamps).tolist() == [1]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_interactions_with_bom_crlf_and_gz(tmp_path: Path, suffix: str) -> None:
    content = f"\ufeff{HEADER}\r\nשרה,🫖,1\r\n".encode()
    path = tmp_path / f"events{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    events = read_interactions(path)
    assert (events.user_ids, events.item_ids) == (["שרה"], ["🫖"])


BROKEN_EVENTS = {
    "u,a": "2 columns; the first line has 3",
    "u,a,1,2": "4 columns; the first line has 3",
    "u,a,": "timestamp: '' is not a number",
    "u,a,yesterday": "timestamp: 'yesterday' is not a number",
    "u,a,nan": "timestamp: nan is not a finite number",
    "u,a,inf": "timestamp: inf is not a finite number",
    "u,a,99999999999999999999": "timestamp: 99999999999999999999 does not fit 64 bits",
    ",a,1": "user_id: a user id has 1 to 256 bytes",
    "u,,1": "item_id: an item id has 1 to 256 bytes",
    "u,a\x07b,1": "item_id: an item id has no control characters, this one has U+0007",
    "u," + "x" * 257 + ",1": "item_id: an item id has 1 to 256 bytes of UTF-8, this one has 257",
    "u,nobody's,1": 'item "nobody\'s" is not in the items file',
    "u," + "x" * 200_000 + ",1": "item_id: an item id has 1 to 256 bytes",
    'u,"' + "x" * 200_000 + '",1': "not CSV",
    "u,a," + "9" * 400: "does not fit 64 bits",
    "u,a," + "9" * 5000: "does not fit 64 bits",
    "u,a,1e999999999": "does not fit 64 bits",
    "u,a,1_000": "timestamp: '1_000' is not a number",
    "u,a,\u0661": "is not a number",
    "u,a,90071992547409930.5": "timestamp: '90071992547409930.5' has more digits than 64 bits keep",
    'u,"a"b,1': "not CSV",
}


@pytest.mark.parametrize(("line", "reason"), BROKEN_EVENTS.items(), ids=range(len(BROKEN_EVENTS)))
def test_a_broken_event_is_named_with_file_number_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "events.csv", HEADER, "u,a,1", line, "v,a,1")
    with pytest.raises(FileFormatError) as caught:
        read_interactions(path, known_items={"a"})
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("line", BROKEN_EVENTS, ids=range(len(BROKEN_EVENTS)))
def test_a_broken_event_can_be_skipped(tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "events.csv", HEADER, "u,a,1", line, "v,a,1")
    with caplog.at_level(logging.WARNING):
        assert read_interactions(path, {"a"}, on_error="skip").user_ids == ["u", "v"]
    assert f"skipped 1 lines of {path}" in caplog.text


def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", HEADER, "u,a,1", 'u,"a,2', "u,b,3", "u,c,4")
    with pytest.raises(FileFormatError, match=r"lines 3-5: not CSV: .* opens a field in line 3"):
        read_interactions(path)
    assert len(read_interactions(path, on_error="skip")) == 1


def test_another_column_may_hold_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", "user_id,review,item_id,timestamp", 'u,"good,\nreally",a,1', "u,fine,b,x")
    with pytest.raises(FileFormatError, match="line 4: timestamp: 'x' is not a number"):
        read_interactions(path)


def test_bytes_that_are_not_utf8_in_an_event(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", HEADER, b"u\xe9,a,1", "\u05d0,a,1")
    with pytest.raises(FileFormatError, match="line 2: user_id: not valid Unicode"):
        read_interactions(path)


@pytest.mark.parametrize("header", ["user,item,time", "u,a,1", "user_id;item_id;timestamp"])
def test_missing_columns(tmp_path: Path, header: str) -> None:
    with pytest.raises(FileFormatError, match="line 1: the columns user_id, item_id, timestamp are needed"):
        read_interactions(write(tmp_path / "events.csv", header, "u,a,1"))


# Stray quotes

ROWS = [f"u{n},a{n},fine,{n}" for n in range(900)]
NOTED = "user_id,item_id,note,timestamp"


def test_a_stray_quote_counts_every_line_that_it_hides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "events.csv", NOTED, 'u,a,"12 inch,0', *ROWS[:899], 'v,b,"13" pan,1', *ROWS[:99])
    with pytest.raises(FileFormatError, match=r"lines 2-902: not CSV: .* opens a field in line 2 .*on-error skip"):
        read_interactions(path)
    with caplog.at_level(logging.WARNING):
        assert len(read_interactions(path, on_error="skip")) == 99
    assert f"skipped 901 lines of {path}" in caplog.text


HIDDEN = {
    "two stray quotes": [NOTED, 'u,a,"12 inch,0', *ROWS, 'v,b,pan 13",1', "w,c,fine,2"],
    "of two neighbours": [NOTED, "w,c,fine,2", 'u,a,"12 inch,0', 'v,b,pan 13",1'],
    "the first column": ["note,user_id,item_id,timestamp", "fine,w,c,2", '"12 inch,u,a,1', 'pan 13",v,b,1'],
    "the last column": ["user_id,item_id,timestamp,note", "w,c,2,fine", 'u,a,1,"12 inch', 'v,b,1,pan 13"'],
    "an id": [HEADER, "w,c,2", 'u,"a,1', *(f"u{n},a{n},{n}" for n in range(9)), 'u,b",1'],
    "quoted rows": [NOTED, "w,c,,2", 'u,a,"12 inch,0', 'v,"b, c","d",1', 'v,b,pan 13",1'],
    "CRLF": [NOTED + "\r", "w,c,,2\r", 'u,a,"12 inch,0\r', *(f"{row}\r" for row in ROWS), 'v,b,pan 13",1\r'],
}


@pytest.mark.parametrize("lines", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_rows_inside_a_quoted_field_do_not_vanish(
    tmp_path: Path, lines: list[str], suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / f"events.{suffix}", *lines)
    if suffix.endswith("gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(FileFormatError, match=r"lines \d+-\d+: (the quote that opens in line|not CSV)"):
        read_interactions(path)
    with caplog.at_level(logging.WARNING):
        kept = len(read_interactions(path, on_error="skip"))
    skipped = int(caplog.messages[-1].removeprefix("skipped ").split()[0])
    assert kept + skipped == len(lines) - 1
    assert "w" in read_interactions(path, on_error="skip").user_ids


@pytest.mark.parametrize(
    "lines",
    [
        [f'{HEADER},"note', *(f"u,a,{n},fine" for n in range(900)), 'u,a,1,fine"', "u,a,1,fine"],
        [f'"{HEADER}', *(f"u,a,{n}" for n in range(900)), 'u,a"'],
        [f'"{HEADER}', *(f"u,a,{n}" for n in range(900))],
    ],
)
def test_a_stray_quote_in_the_header_hides_no_rows(tmp_path: Path, lines: list[str]) -> None:
    for on_error in ("raise", "skip"):
        with pytest.raises(FileFormatError, match=r"lines 1-90\d: ") as caught:
            read_interactions(write(tmp_path / "events.csv", *lines), on_error=on_error)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 600


def test_text_of_several_lines_with_commas_is_no_stray_quote(tmp_path: Path) -> None:
    lines = [
        "note,user_id,item_id,timestamp",
        '"good, really,',
        "",
        'more, 5, of it, all"",',
        'the end",u,a,1',
        '"x\ny",v,b,2',
    ]
    path = write(tmp_path / "events.csv", *lines)
    assert read_interactions(path).user_ids == ["u", "v"]
    path = write(
        tmp_path / "events.csv", "user_id,item_id,timestamp,note", 'u,a,1,"good', 'really"', 'v,b,2,"x""', 'y"'
    )
    assert read_interactions(path).user_ids == ["u", "v"]


def test_a_quote_that_is_never_closed_stops_at_the_limit_of_a_field(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of many lines is not read into memory as one field, and what comes after it is read."""
    path = write(tmp_path / "events.csv", HEADER, 'u,"a,1', *(f"user-{n},a,{n}" for n in range(20_000)))
    with caplog.at_level(logging.WARNING):
        kept = len(read_interactions(path, on_error="skip"))
    skipped = int(caplog.messages[-1].removeprefix("skipped ").split()[0])
    assert kept + skipped == 20_001
    assert kept > 10_000


# Timestamps


@pytest.mark.parametrize("odd", ["1.5e18", "1700000000000000100.0", "17000000000000001e2", "+1700000000000000100"])
def test_whole_numbers_stay_exact_however_one_is_written(tmp_path: Path, odd: str) -> None:
    whole = [1700000000000000300, 1700000000000000100, 1700000000000000200]
    path = write(tmp_path / "events.csv", HEADER, *(f"u,a,{time}" for time in whole), f"v,a,{odd}")
    times = read_interactions(path).timestamps
    assert times.dtype == np.int64
    assert times[:3].tolist() == whole
    assert times[3] in (1500000000000000000, 1700000000000000100)


def test_a_fraction_among_nanoseconds_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = [f"u,a,{1700000000000000000 + n}" for n in (3, 1, 2)]
    path = write(tmp_path / "events.csv", HEADER, *whole, "v,a,0.5")
    with pytest.raises(FileFormatError, match=r"line 5: timestamp: 0\.5 is a fraction among 3 whole numbers beyond"):
        read_interactions(path)
    with caplog.at_level(logging.WARNING):
        read = read_interactions(path, on_error="skip")
    assert read.timestamps.tolist() == [1700000000000000003, 1700000000000000001, 1700000000000000002]
    assert f"skipped 1 lines of {path}" in caplog.text
    path = write(tmp_path / "events.csv", HEADER, "v,a,0.5", "v,a,1.5", whole[0])
    with pytest.raises(FileFormatError, match="line 4: timestamp: 1700000000000000003 is a whole number beyond"):
        read_interactions(path)
    assert read_interactions(path, on_error="skip").timestamps.tolist() == [0.5, 1.5]


def test_fractions_among_small_whole_numbers_are_exact(tmp_path: Path) -> None:
    path = write(tmp_path / "events.csv", HEADER, f"u,a,{2**53}", "u,b,1700000000.25", f"u,c,{2**53 - 1}")
    assert read_interactions(path).timestamps.tolist() == [2**53, 1700000000.25, 2**53 - 1]


@pytest.mark.parametrize(
    ("times", "counts"),
    [
        ([1577836800, 1577836800000, 1577836801000], "line 2: .* 1 in seconds and 2 in milliseconds"),
        ([1577836800000, 1577836801000, 1577836800000000], "line 4: .* 2 in milliseconds and 1 in microseconds"),
        ([1577836800000000000, 1577836800, 1577836801], "line 2: .* 2 in seconds and 1 in nanoseconds"),
        ([1577836800.5, 1577836800000.5, 0], "1 in seconds and 1 in milliseconds"),
    ],
)
def test_timestamps_of_several_units_are_refused(tmp_path: Path, times: list[float], counts: str) -> None:
    path = write(tmp_path / "events.csv", HEADER, *(f"u,a,{time}" for time in times))
    for on_error in ("raise", "skip"):
        with pytest.raises(FileFormatError, match=counts):
            read_interactions(path, on_error=on_error)  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [[0, 1577836800], [-1, 5, 20000], [0, 1577836800000], [2**62, 2**61]])
def test_other_numbers_are_of_no_unit(tmp_path: Path, times: list[int]) -> None:
    path = write(tmp_path / "events.csv", HEADER, *(f"u,a,{time}" for time in times))
    assert read_interactions(path).timestamps.tolist() == times


def test_a_header_that_is_no_csv(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="line 1: not CSV"):
        read_interactions(write(tmp_path / "events.csv", '"user_id"x,item_id,timestamp', "u,a,1"))


def test_an_interactions_file_without_events(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no interactions in it"):
        read_interactions(write(tmp_path / "events.csv", HEADER))


def test_interactions_cut_short_in_the_gz(tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    whole = gzip.compress("\n".join([HEADER] + [f"u{i},{i**7},{i}" for i in range(5000)]).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=r"line \d+: cannot be read on"):
        read_interactions(path)


# Parquet


def test_parquet_is_read(tmp_path: Path) -> None:
    table = pa.table({"item_id": ["b", "a"], "user_id": [7, 8], "timestamp": [2, 1], "rating": [5, 4]})
    pq.write_table(table, tmp_path / "events.parquet")
    events = read_interactions(tmp_path / "events.parquet")
    assert (events.user_ids, events.item_ids) == (["7", "8"], ["b", "a"])  # an id is its text
    assert events.timestamps.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("user_id", ["u", None], "user_id: a user id is a string, not null"),
        ("item_id", ["a", None], "item_id: an item id is a string, not null"),
        ("item_id", ["a", "b"], "item 'b' is not in the items file"),
        ("timestamp", [1.0, float("nan")], "timestamp: nan is not a finite number"),
        ("timestamp", [1, None], "timestamp: None is not a finite number"),
        ("timestamp", [True, False], "timestamp: True is not a finite number"),
        ("timestamp", [datetime(2020, 1, 1), None], "timestamp: 2020-01-01 00:00:00 is a date; write it as a number"),
        ("user_id", [True, False], "user_id: a user id is a string, not true or false"),
    ],
)
def test_a_broken_row_of_parquet(tmp_path: Path, column: str, values: list[Any], reason: str) -> None:
    columns: dict[str, list[Any]] = {"user_id": ["u", "v"], "item_id": ["a", "a"], "timestamp": [1, 2], column: values}
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns), path)
    row = 1 if values[0] is True or isinstance(values[0], datetime) else 2
    with pytest.raises(FileFormatError) as caught:
        read_interactions(path, {"a"})
    assert str(caught.value).startswith(f"{path}, line {row}: ")
    assert reason in str(caught.value)


def test_parquet_without_the_columns_or_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"user": ["u"]}), path)
    with pytest.raises(FileFormatError, match="not a Parquet file of user_id, item_id, timestamp"):
        read_interactions(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FileFormatError, match="not a Parquet file"):
        read_interactions(path)


@pytest.mark.slow
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from seqrec.data.items import read_interactions; read_interactions('x.parquet')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "pip install 'seqrec[parquet]'" in done.stderr
