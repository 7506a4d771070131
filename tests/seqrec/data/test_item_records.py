"""Items in Parquet are those of JSON Lines; what is wrong is named with its file and row."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.items import Item, read_items
from seqrec.errors import FileFormatError

COLUMNS: dict[str, list[Any]] = {
    "item_id": ["a", "b"],
    "title": ["Oak desk", None],
    "tags": [["wood", "office"], []],
    "price": [120.5, None],
    "stock": [3, 0],
    "available": [None, False],
}


def write(path: Path, **changes: list[Any]) -> Path:
    pq.write_table(pa.table(COLUMNS | changes), path)
    return path


def test_columns_are_attributes_and_nulls_are_none(tmp_path: Path) -> None:
    assert read_items(write(tmp_path / "items.parquet")) == [
        Item("a", {"title": "Oak desk", "tags": ("wood", "office"), "price": 120.5, "stock": 3}),
        Item("b", {"tags": (), "stock": 0}, available=False),
    ]


def test_a_directory_is_read_in_the_order_of_its_files(tmp_path: Path) -> None:
    write(tmp_path / "part-1.parquet", item_id=[7, 8])  # ids that are numbers become text
    write(tmp_path / "part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    assert [item.item_id for item in read_items(tmp_path)] == ["a", "b", "7", "8"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"item_id": ["a", None]}, "line 2: item_id: an item id is a string, not null"),
        ({"item_id": ["a", "a"]}, "line 2: item 'a' occurs already in line 1"),
        ({"price": [1.0, float("nan")]}, "line 2: attributes.price: nan is not a number that can be stored"),
        ({"stock": [True, False]}, "line 1: attributes.stock: a value is a string, a number or a list of strings"),
        ({"available": ["yes", "no"]}, "line 1: available: true or false, not a string"),
    ],
)
def test_a_broken_row_is_named_or_skipped(
    tmp_path: Path, changes: dict[str, list[Any]], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "items.parquet", **changes)
    with pytest.raises(FileFormatError) as caught:
        read_items(path)
    assert str(caught.value).startswith(f"{path}, {reason}")
    write(tmp_path / "good.parquet", item_id=["y", "z"])
    caplog.set_level(logging.WARNING)
    assert {"y", "z"} <= {item.item_id for item in read_items(tmp_path, "skip")}
    assert f"skipped {path}, {reason}" in caplog.text
    assert f"lines of {tmp_path}" in caplog.text


def test_an_item_of_two_files_names_both(tmp_path: Path) -> None:
    write(tmp_path / "part-0.parquet")
    second = write(tmp_path / "part-1.parquet", item_id=["c", "b"])
    with pytest.raises(FileFormatError) as caught:
        read_items(tmp_path)
    assert str(caught.value).startswith(f"{second}, line 2: item 'b' occurs already in line 2 of part-0.parquet")


def test_what_is_no_table_of_items(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    with pytest.raises(FileFormatError, match="no such file"):
        read_items(path)
    with pytest.raises(FileFormatError, match=r"a directory, not a file, and without any \*.parquet in it"):
        read_items(tmp_path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(FileFormatError, match=r"no column item_id, only \['id'\]"):
        read_items(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FileFormatError, match="not a Parquet file that can be read"):
        read_items(path)
