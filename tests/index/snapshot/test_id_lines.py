"""Ids on disk against a list of the same ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.snapshot import columns
from index.snapshot.columns import IdLines

IDS = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1), unique=True)


def written(path: Path, ids: list[str]) -> IdLines:
    path.write_bytes("".join(f"{one}\n" for one in ids).encode())
    return IdLines(path)


@given(IDS, IDS, st.sampled_from([1, 2, 64]), st.sampled_from([5, 40, 1 << 22]))
def test_they_are_the_list(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], others: list[str], block: int, at_once: int
) -> None:
    ids = sorted(one for one in ids if len(one.encode()) < at_once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_BLOCK", block)
        patch.setattr(columns, "_BYTES_AT_ONCE", at_once)
        lines = written(tmp_path_factory.mktemp("ids") / "ids.txt", ids)
        assert list(lines) == ids
        assert len(lines) == len(ids)
        assert [lines[row] for row in range(len(ids))] == ids
        assert [lines[row] for row in range(-len(ids), 0)] == ids
        assert lines[1:5] == ids[1:5]
        for one in [*ids, *others]:
            assert lines.row_of(one) == (ids.index(one) if one in ids else None)


@pytest.mark.parametrize("row", [3, -4])
def test_a_row_that_is_not_there(tmp_path: Path, row: int) -> None:
    lines = written(tmp_path / "ids.txt", ["a", "b", "c"])
    with pytest.raises(IndexError, match="of 3"):
        lines[row]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"a\n\xff\nb\n")
    with pytest.raises(UnicodeDecodeError):
        IdLines(tmp_path / "ids.txt")


def test_a_line_that_was_cut(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"a\nb\nc")
    assert list(IdLines(tmp_path / "ids.txt")) == ["a", "b"]
