"""The fast reader takes clean files only, and gives what the slow one gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqrec.data.items import check_item_id, check_user_id, read_interactions
from seqrec.data.parquet_events import read_clean_events
from seqrec.errors import FileFormatError

ROWS = [("u1", "a", 5), ("u2", "b", 7), ("u1", "b", 9)]
COLUMNS: dict[str, list[Any]] = {
    name: [row[place] for row in ROWS] for place, name in enumerate(("user_id", "item_id", "timestamp"))
}


def write(path: Path, **changed: list[Any]) -> Path:
    pq.write_table(pa.table({**COLUMNS, **changed}), path)
    return path


def test_a_clean_file(tmp_path: Path) -> None:
    read = read_clean_events(write(tmp_path / "a.parquet"), {"a", "b"}, check_user_id, check_item_id)
    assert read is not None
    assert list(zip(read[0], read[1], read[2].tolist(), strict=True)) == ROWS
    assert read[0][0] is read[0][2]
    events = read_interactions(tmp_path / "a.parquet", {"a", "b"})
    assert (events.user_ids, events.item_ids, events.timestamps.tolist()) == (read[0], read[1], [5, 7, 9])


@pytest.mark.parametrize(
    "changed",
    [
        {"user_id": ["u1", None, "u1"]},
        {"user_id": ["u1", " u2 ", "u1"]},
        {"item_id": [1, 2, 3]},
        {"item_id": ["a", "", "b"]},
        {"timestamp": [1.5, 2.0, 3.0]},
    ],
)
def test_other_files_are_left_to_the_slow_reader(tmp_path: Path, changed: dict[str, list[Any]]) -> None:
    assert read_clean_events(write(tmp_path / "a.parquet", **changed), None, check_user_id, check_item_id) is None


def test_unknown_items_are_still_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="line 2: item 'b' is not in the items file"):
        read_interactions(write(tmp_path / "a.parquet"), {"a"})


def test_what_is_no_parquet_is_still_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(FileFormatError, match="not a Parquet file"):
        read_interactions(tmp_path / "a.parquet")
