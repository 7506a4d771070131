"""Columns of attributes on disk: those of a snapshot answer filters as its items do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.snapshot import attribute_columns
from index.snapshot.attribute_columns import Column, ColumnWriter, StoredColumns
from index.snapshot.snapshot import Snapshot
from seqrec.data.items import AttributeValue, Item, make_item
from seqrec.errors import SnapshotError
from service.live.filter_language import Filter, parse_filter
from service.live.filters import SnapshotFilters

TEXTS = st.sampled_from(["Acme", "3", "", "\U0001fad6", "2**53"])
NUMBERS = st.sampled_from([0, 1, 1.0, -2.5, 3, 2**53 + 1, -(2**60), 1e300])
VALUES = TEXTS | NUMBERS | st.lists(TEXTS, max_size=3, unique=True).map(tuple)
ROWS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES), max_size=12)


def stored(folder: Path, rows: Sequence[Mapping[str, AttributeValue]]) -> StoredColumns:
    writer = ColumnWriter()
    for attributes in rows:
        writer.append(attributes)
    writer.write(folder)
    return StoredColumns(folder, len(rows))


def read(rows: Sequence[Mapping[str, AttributeValue]], name: str) -> Column:
    column = Column()
    for attributes in rows:
        column.append(attributes.get(name))
    return column


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.lists(TEXTS | NUMBERS, max_size=3), NUMBERS)
def test_a_stored_column_is_the_one_that_is_read(
    tmp_path: Path, rows: list[dict[str, AttributeValue]], values: list[str | float], bound: float
) -> None:
    columns, n = stored(tmp_path, rows), len(rows)
    assert list(columns.first_rows) == list(dict.fromkeys(name for row in rows for name in row))
    assert all(name in rows[first] for name, first in columns.first_rows.items())
    for name in ("a", "b", "c"):
        column, expected = columns.column(name), read(rows, name)
        if column is None:
            assert name not in columns.first_rows
            continue
        assert np.array_equal(column.present(n), expected.present(n))
        for every in (False, True):
            assert np.array_equal(column.having(values, n, every), expected.having(values, n, every))
        for word in ("gt", "gte", "lt", "lte"):
            assert np.array_equal(column.compare(word, bound, n), expected.compare(word, bound, n))


class Counting:
    """Some of what a snapshot has; counts how often an item is read."""

    def __init__(self, items: Sequence[Item], columns: StoredColumns | None) -> None:
        self.item_ids = [item.item_id for item in items]
        self.columns = columns
        self.read = 0
        self._items = items

    def item(self, row: int) -> Item:
        self.read += 1
        return self._items[row]


def wanted(value: Mapping[str, object]) -> Filter:
    return parse_filter(value, "filter", 10)


def test_no_item_is_read_for_a_stored_column_nor_to_learn_that_nobody_has_an_attribute(tmp_path: Path) -> None:
    items = [make_item(f"i{row}", {"title": f"oak {row}", "price": row % 4}) for row in range(20)]
    snapshot = Counting(items, stored(tmp_path, [item.attributes for item in items]))
    filters = SnapshotFilters(cast(Snapshot, snapshot))
    assert filters.mask(wanted({"price": {"lt": 1}, "title": {"exists": True}})).sum() == 5
    assert not filters.mask(wanted({"prize": 1})).any()
    assert filters.unknown(["price", "prize"]) == ["prize"]
    filters.read_names()
    assert snapshot.read == 0


def test_an_attribute_of_many_long_texts_is_read_from_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribute_columns, "MOST_VALUE_BYTES", 100)
    items = [make_item(f"i{row}", {"title": f"oak {row}", "price": row % 4}) for row in range(20)]
    columns = stored(tmp_path, [item.attributes for item in items])
    assert columns.column("title") is None
    assert columns.column("price") is not None
    snapshot = Counting(items, columns)
    filters = SnapshotFilters(cast(Snapshot, snapshot))
    assert np.flatnonzero(filters.mask(wanted({"title": "oak 7", "price": 3}))).tolist() == [7]
    assert snapshot.read == 20


def test_more_attributes_than_columns_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribute_columns, "MOST_STORED", 2)
    columns = stored(tmp_path, [{"a": 1}, {"b": 2, "c": 3}])
    assert dict(columns.first_rows) == {"a": 0, "b": 1, "c": 1}
    assert [columns.column(name) is None for name in "abc"] == [False, False, True]


@pytest.mark.parametrize("content", ["", "[]", "{", "{}"])
def test_a_file_that_was_altered_is_refused(tmp_path: Path, content: str) -> None:
    stored(tmp_path, [{"a": 1}])
    (tmp_path / "columns.json").write_text(content, encoding="utf-8")
    with pytest.raises(SnapshotError, match="was altered"):
        StoredColumns(tmp_path, 1)
