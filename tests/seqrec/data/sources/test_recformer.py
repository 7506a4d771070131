"""The Recformer authors' data folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqrec.errors import FileFormatError

Run = Callable[..., Any]
ITEM = {"title": "Desk", "brand": "Acme", "category": "Office Desks"}
FILES: dict[str, Any] = {
    "meta_data.json": {
        "B1": ITEM,
        "B2": {"title": "Lamp &amp; more", "brand": "", "category": None},
        "B3": "A title alone",
    },
    "smap.json": {"B2": 0, "B1": 1, "B4": 2},
    "umap.json": {"A1": 0, "A2": 1, "A3": 2},
    "train.json": {"0": [1, 0, 1], "1": [0, 2]},
    "val.json": {"0": [0]},
    "test.json": {"0": [1]},
}


def write(folder: Path, **changed: Any) -> Path:
    for name, value in FILES.items():
        value = changed.get(name.partition(".")[0], value)
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder


def test_histories_are_train_val_and_test(tmp_path: Path, run: Run) -> None:
    done = run("recformer-data", write(tmp_path))
    assert done.items == {"B1": ITEM, "B2": {"title": "Lamp &amp; more"}, "B4": {}}
    assert done.events == [
        *(("A1", item, place) for place, item in enumerate(["B1", "B2", "B1", "B2", "B1"])),
        ("A2", "B2", 0),
        ("A2", "B4", 1),
    ]
    assert run("recformer-data", tmp_path, "--items", "all").items["B3"] == {"title": "A title alone"}


def test_a_split_by_user_has_each_history_once(tmp_path: Path, run: Run) -> None:
    held = {"2": [1, 0, 0]}
    done = run("recformer-data", write(tmp_path, train={"0": [0]}, val=held, test=held))
    assert done.events == [("A1", "B2", 0), ("A3", "B1", 0), ("A3", "B2", 1), ("A3", "B2", 2)]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"val": {"0": [9]}}, r"val\.json: user '0': 9 is not in smap\.json"),
        ({"train": {"7": [0]}}, r"train\.json: user '7': '7' is not in umap\.json"),
        ({"meta_data": {"B1": {"title": {"a": 1}}}}, r"meta_data\.json: item 'B1': attributes\.title: a value is"),
    ],
)
def test_what_does_not_fit_is_named_or_skipped(changed: dict[str, Any], reason: str, tmp_path: Path, run: Run) -> None:
    write(tmp_path, **changed)
    with pytest.raises(FileFormatError, match=reason):
        run("recformer-data", tmp_path)
    assert run("recformer-data", tmp_path, "--on-error", "skip").events


@pytest.mark.parametrize(("text", "reason"), [("{", "not JSON"), ("[]", "not one JSON object")])
def test_a_file_that_is_broken_as_a_whole_is_refused(text: str, reason: str, tmp_path: Path, run: Run) -> None:
    with pytest.raises(FileFormatError, match=rf"smap\.json: {reason}"):
        run("recformer-data", write(tmp_path, smap=text), "--on-error", "skip")
    (tmp_path / "umap.json").unlink()
    (tmp_path / "smap.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"umap\.json: no such file"):
        run("recformer-data", tmp_path)
    with pytest.raises(FileFormatError, match="no such folder"):
        run("recformer-data", tmp_path / "nowhere")
