"""Nested JSON and Parquet give the same rows, a bad nest is named by its place, memory does not grow with a file."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.tables.base import Rejects, TableOptions
from seqrec.data.tables.nested import flatten
from seqrec.data.tables.nested import rows_of as rows_of_record
from seqrec.data.tables.open import open_table
from seqrec.errors import InputError

ORDERS: list[dict[str, Any]] = [
    {
        "id": 1,
        "customer": {"id": 7, "mail": "a@x"},
        "lines": [{"id": "a", "n": 2}, {"id": "b", "n": 1}],
        "tags": ["new"],
    },
    {"id": 2, "customer": {"id": 8, "mail": None}, "lines": [], "tags": []},
    {"id": 3, "customer": None, "lines": None, "tags": None},
    {"id": 4, "customer": {"id": 9, "mail": "c@x"}, "lines": [{"id": None, "n": 5}], "tags": ["x", "y"]},
]
LINES = [(1, 7, "a", 2), (1, 7, "b", 1), (2, 8, None, None), (3, None, None, None), (4, 9, None, 5)]
NAMES = ["id", "customer.id", "lines.id", "lines.n"]


def rows_of(path: Path, names: list[str] | None = None, **options: Any) -> list[tuple[Any, ...]]:
    table = open_table(str(path), TableOptions(**options), "events")
    batches = [batch.to_pydict() for batch in table.batches(names, Rejects("raise"))]
    return [row for batch in batches for row in zip(*batch.values(), strict=True)]


@pytest.fixture(params=["a.json", "list.json", "a.jsonl", "deep.json", "a.parquet", "folder"])
def orders(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same orders in each kind of file."""
    path: Path = tmp_path / request.param
    lines = [json.dumps(order) + "\n" for order in ORDERS]
    if request.param == "a.json":
        path.write_text(json.dumps({"count": 4, "orders": ORDERS, "links": {"next": None}}))
    elif request.param == "list.json":
        path.write_text(json.dumps(ORDERS, indent=1))
    elif request.param == "deep.json":
        path.write_text(json.dumps({"data": {"shop": {"orders": ORDERS}}}))
    elif request.param == "a.jsonl":
        path.write_text("".join(lines))
    elif request.param == "folder":
        path.mkdir()
        for number, part in enumerate((lines[:2], lines[2:])):
            (path / f"{number}.json").write_text("".join(part))  # lines, though named .json
    else:
        pq.write_table(pa.Table.from_pylist(ORDERS), path)
    return path


def test_a_row_for_each_element_with_the_fields_of_its_record(orders: Path) -> None:
    assert rows_of(orders, NAMES, rows="lines") == LINES
    assert rows_of(orders, ["id", "tags"], rows="tags") == [(1, "new"), (2, None), (3, None), (4, "x"), (4, "y")]
    assert rows_of(orders, ["id", "customer.mail"]) == [(1, "a@x"), (2, None), (3, None), (4, "c@x")]
    assert {"lines", "tags"} <= set(open_table(str(orders), TableOptions(), "events").lists)


def test_a_list_that_is_not_there(orders: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rows = 'items' is no list in its records; its lists are lines, tags"):
        rows_of(orders, rows="items")
    (tmp_path / "a.csv").write_text("id,lines\n1,2\n")
    with pytest.raises(InputError, match="rows = 'lines' is no list in its records; its records have no lists"):
        rows_of(tmp_path / "a.csv", rows="lines")


def test_lists_in_lists_and_what_holds_a_single_object() -> None:
    record = {"id": 1, "boxes": [{"n": 1, "lines": [{"sku": "a"}, {"sku": "b"}]}, {"n": 2, "lines": []}, {"n": 3}]}
    rows = rows_of_record(record, "boxes.lines")
    assert [(row["boxes.n"], row.get("boxes.lines.sku")) for row in rows] == [(1, "a"), (1, "b"), (2, None), (3, None)]
    assert rows_of_record({"id": 1, "lines": {"sku": "a"}}, "lines") == [{"id": 1, "lines.sku": "a"}]
    assert flatten({"id": 1, "attributes": {"title": "x", "id": 2}}) == {"id": 1, "title": "x", "attributes.id": 2}


def test_the_longest_of_several_lists_or_the_one_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"errors": [{"code": 5}], "orders": ORDERS, "ids": [1, 2, 3, 4, 5, 6]}))
    table = open_table(str(path), TableOptions(), "events")
    assert (table.notes["records"], table.notes["of"]) == ("orders", "orders (4), errors (1)")
    assert rows_of(path, records="errors") == [(5,)]
    with pytest.raises(InputError, match=r"no list of objects 'nope'; there are orders \(4\), errors \(1\)"):
        rows_of(path, records="nope")


def test_a_row_is_named_by_the_place_of_its_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"orders": ORDERS}, indent=1))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ORDERS)))
    (tmp_path / "one.json").write_text('{"orders":\n[{"id": 1},\n {"id": 2}]}')
    for name, place in (("a.json", "line 23: object 2: no"), ("a.jsonl", "line 2: no")):
        table = open_table(str(tmp_path / name), TableOptions(rows="lines"), "events")
        assert str(table.error(2, "no")).endswith(f"{name}, {place}")
    table = open_table(str(tmp_path / "one.json"), TableOptions(), "events")
    assert str(table.error(1, "no")).endswith("one.json, line 3: object 2: no")


def test_numbers_of_any_size_and_texts_longer_than_a_piece(tmp_path: Path) -> None:
    """Objects that lie across the pieces in which a file is read."""
    records = [{"id": 10**30 + n, "text": 'é\\"]}' * (n * 40_000 % 700_001), "x": 1.5} for n in range(12)]
    (tmp_path / "a.json").write_text(json.dumps({"a": {"b": records}}, ensure_ascii=False))
    found = rows_of(tmp_path / "a.json", ["id", "text"])
    assert [(int(one), text) for one, text in found] == [(record["id"], record["text"]) for record in records]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_document(tmp_path: Path) -> None:
    peaks = []
    for size in (5_000, 40_000):
        path = tmp_path / f"{size}.json"
        lines = [{"product_id": n, "quantity": 1, "note": "x" * 300} for n in range(4)]
        path.write_text(json.dumps({"orders": [{"id": n, "lines": lines} for n in range(size)]}))
        table = open_table(str(path), TableOptions(rows="lines"), "events")
        tracemalloc.start()
        for _ in table.batches(["id", "lines.product_id"], Rejects("raise")):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4 * peaks[0]  # eight times the orders; the first batch is a short one
