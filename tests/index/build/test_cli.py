from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from index.build.cli import index, reindex
from index.snapshot.snapshot import SnapshotStore
from seqrec import cli
from seqrec.errors import CatalogueError, CheckpointError, FileFormatError, SnapshotError

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEQREC_HOME", str(home))
    return home


def told(capsys: Captured) -> Any:
    return json.loads(capsys.readouterr().out)


def test_from_a_file_to_a_published_snapshot_and_back(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, capsys: Captured
) -> None:
    build = ["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file), "--json"]
    index([*build, "--publish"])
    one = told(capsys)
    assert (one["count"], one["created"], one["recall"], one["published"], one["seq"]) == (8, 8, 1.0, True, 8)
    index(build)
    two = told(capsys)
    assert (two["created"], two["unchanged"], two["published"], two["seq"]) == (0, 8, False, 9)
    index(["verify", two["snapshot"], "--json"])
    assert told(capsys) == {"snapshot": two["snapshot"], "whole": True, "count": 8}
    index(["publish", two["snapshot"], "--json"])
    assert told(capsys) == {"snapshot": two["snapshot"], "seq": 10}
    index(["list", "--json"])
    assert [(row["snapshot"], row["served"], row["count"]) for row in told(capsys)] == [
        (one["snapshot"], False, 8),
        (two["snapshot"], True, 8),
    ]
    index(["rollback", "--json"])
    assert told(capsys) == {"snapshot": one["snapshot"], "seq": 11}
    reindex(["--json", "--no-publish"])
    assert told(capsys)["published"] is False
    reindex(["--json"])
    assert told(capsys)["published"] is True


def test_people_are_told_in_words(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, capsys: Captured
) -> None:
    index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file)])
    out = capsys.readouterr().out
    (snapshot_id,) = SnapshotStore(here).list()
    assert "catalogue: 8 items created, 0 updated, 0 unchanged" in out
    assert f"snapshot {snapshot_id}: 8 items, recall 1.000; not served yet: seqrec index publish {snapshot_id}" in out
    index(["publish", snapshot_id])
    index(["verify", snapshot_id])
    index(["list"])
    out = capsys.readouterr().out
    assert f"snapshot {snapshot_id} is served from now on" in out
    assert f"snapshot {snapshot_id} is whole: 8 items, 14 files" in out
    assert f"* {snapshot_id}          8 items  bag_of_words" in out


def test_a_damaged_snapshot_is_listed_as_such_and_others_go_on(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, capsys: Captured
) -> None:
    build = ["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file), "--publish"]
    index(build)
    (broken,) = SnapshotStore(here).list()
    (here / "snapshots" / broken / "manifest.json").write_text("{", encoding="utf-8")
    index(build)
    capsys.readouterr()
    index(["list", "--json"])
    first, second = sorted(told(capsys), key=lambda row: row["served"])
    assert "manifest.json" in first["error"]
    assert second["served"]
    with pytest.raises(SnapshotError, match=r"manifest\.json"):
        index(["verify", broken])
    with pytest.raises(SnapshotError, match=r"manifest\.json"):
        index(["rollback"])


def test_where_nothing_is_the_way_out_is_told(
    here: Path, bag_of_words_checkpoint: Path, items_file: Path, tmp_path: Path
) -> None:
    for argv in (["list"], ["rollback"], ["verify", "x"], ["publish", "x"]):
        with pytest.raises(CatalogueError, match=r"no catalogue in .*; `seqrec index build --items` makes one"):
            index(argv)
    with pytest.raises(CatalogueError):
        reindex([])
    assert not here.exists()
    with pytest.raises(FileFormatError, match="no such file"):
        index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(tmp_path / "none.jsonl")])
    with pytest.raises(CheckpointError, match="not a directory"):
        index(["build", "--checkpoint", str(tmp_path / "none"), "--items", str(items_file)])
    with pytest.raises(SnapshotError, match="name one by --checkpoint"):
        reindex([])
    with pytest.raises(SnapshotError, match="'x' is no snapshot id; `seqrec index list`"):
        index(["publish", "x"])


def test_a_broken_line_is_named_or_skipped(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, capsys: Captured
) -> None:
    with items_file.open("a", encoding="utf-8") as file:
        file.write('{"item_id": "cut sho')
    build = ["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file), "--json"]
    with pytest.raises(FileFormatError, match="line 9: not JSON"):
        index(build)
    assert not here.exists()
    index([*build, "--on-error", "skip"])
    assert told(capsys)["created"] == 8


def test_a_job_file_tells_how_it_went(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, tmp_path: Path, capsys: Captured
) -> None:
    index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file), "--publish"])
    path = tmp_path / "jobs" / "1.json"
    path.parent.mkdir()
    path.write_text('{"id": "1", "state": "queued"}', encoding="utf-8")
    capsys.readouterr()
    reindex(["--json", "--job", str(path)])
    job = json.loads(path.read_text(encoding="utf-8"))
    snapshot_id = told(capsys)["snapshot"]
    assert (job["id"], job["state"], job["snapshot"], job["error"]) == ("1", "done", snapshot_id, None)
    assert (job["done"], job["total"]) == (8, 8)
    with pytest.raises(CheckpointError):
        reindex(["--checkpoint", str(tmp_path / "none"), "--job", str(path)])
    job = json.loads(path.read_text(encoding="utf-8"))
    assert (job["state"], job["snapshot"]) == ("failed", None)
    assert "not a directory" in job["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_told_to_end_says_so(
    here: Path,
    items_file: Path,
    bag_of_words_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file), "--publish"])
    before = SnapshotStore(here).list()
    monkeypatch.setattr("index.snapshot.writer.measure_recall", lambda *_: signal.raise_signal(number))
    handler = signal.getsignal(signal.SIGTERM)
    path = tmp_path / "job.json"
    with pytest.raises(SystemExit) as end:
        cli.main(["reindex", "--job", str(path)])
    assert end.value.code == 130
    job = json.loads(path.read_text(encoding="utf-8"))
    assert (job["state"], job["error"]) == ("failed", "it was ended before it was done")
    assert SnapshotStore(here).list() == before
    assert not list((here / "snapshots").glob(".tmp-*"))
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_full_disk_is_told_and_leaves_nothing_behind(
    here: Path,
    items_file: Path,
    bag_of_words_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    def full(*_: object) -> float:
        raise OSError(28, "No space left on device", str(here))

    monkeypatch.setattr("index.snapshot.writer.measure_recall", full)
    argv = ["index", "build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file)]
    with pytest.raises(SystemExit, match="1"):
        cli.main(argv)
    assert "No space left on device" in capsys.readouterr().err
    assert SnapshotStore(here).list() == []
    assert not list((here / "snapshots").glob(".tmp-*"))


def test_help_names_every_command(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        index(["--help"])
    out = capsys.readouterr().out
    for command in ("build", "verify", "publish", "rollback", "list"):
        assert command in out
