from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from index.build.cli import index, reindex
from index.snapshot.snapshot import SnapshotStore
from seqrec import cli
from seqrec.errors import CatalogueError, CheckpointError, FileFormatError, InputError, SnapshotError

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEQREC_HOME", str(home))
    return home


def answer(capsys: Captured) -> Any:
    return json.loads(capsys.readouterr().out)


def test_from_a_file_to_a_published_snapshot_and_back(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, capsys: Captured
) -> None:
    build = ["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file), "--json"]
    index([*build, "--publish"])
    one = answer(capsys)
    assert (one["count"], one["created"], one["recall"], one["published"], one["seq"]) == (8, 8, 1.0, True, 8)
    index(build)
    two = answer(capsys)
    assert (two["snapshot"], two["new"], two["unchanged"]) == (one["snapshot"], False, 8)
    index([*build, "--force"])
    two = answer(capsys)
    assert (two["created"], two["new"], two["published"], two["seq"]) == (0, True, False, 9)
    index(["verify", two["snapshot"], "--json"])
    assert answer(capsys) == {"snapshot": two["snapshot"], "whole": True, "count": 8}
    index(["publish", two["snapshot"], "--json"])
    assert answer(capsys) == {"snapshot": two["snapshot"], "seq": 10}
    index(["list", "--json"])
    assert [(row["snapshot"], row["served"], row["count"]) for row in answer(capsys)] == [
        (one["snapshot"], False, 8),
        (two["snapshot"], True, 8),
    ]
    index(["rollback", "--json"])
    assert answer(capsys) == {"snapshot": one["snapshot"], "seq": 11}
    reindex(["--json", "--no-publish"])
    assert answer(capsys)["published"] is False
    reindex(["--json"])
    assert answer(capsys)["published"] is True


def test_people_get_text(here: Path, items_file: Path, bag_of_words_checkpoint: Path, capsys: Captured) -> None:
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
    assert f"snapshot {snapshot_id} is intact: 8 items, 20 files" in out
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
    first, second = sorted(answer(capsys), key=lambda row: row["served"])
    assert "manifest.json" in first["error"]
    assert second["served"]
    with pytest.raises(SnapshotError, match=r"manifest\.json"):
        index(["verify", broken])
    with pytest.raises(SnapshotError, match=r"manifest\.json"):
        index(["rollback"])


def test_where_nothing_is_the_way_out_is_reported(
    here: Path, bag_of_words_checkpoint: Path, items_file: Path, tmp_path: Path
) -> None:
    for argv in (["list"], ["rollback"], ["verify", "x"], ["publish", "x"]):
        with pytest.raises(CatalogueError, match=r"no catalogue in .*; `seqrec index build --items` creates one"):
            index(argv)
    with pytest.raises(CatalogueError):
        reindex([])
    assert not here.exists()
    with pytest.raises(FileFormatError, match="no such file"):
        index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(tmp_path / "none.jsonl")])
    with pytest.raises(CheckpointError, match="not a directory"):
        index(["build", "--checkpoint", str(tmp_path / "none"), "--items", str(items_file)])
    with pytest.raises(SnapshotError, match="name a model by --checkpoint"):
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
    assert answer(capsys)["created"] == 8


def test_a_job_file_reports_how_it_went(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, tmp_path: Path, capsys: Captured
) -> None:
    index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file), "--publish"])
    path = tmp_path / "jobs" / "1.json"
    path.parent.mkdir()
    path.write_text('{"id": "1", "state": "queued"}', encoding="utf-8")
    capsys.readouterr()
    reindex(["--json", "--job", str(path)])
    job = json.loads(path.read_text(encoding="utf-8"))
    snapshot_id = answer(capsys)["snapshot"]
    assert (job["id"], job["state"], job["snapshot"], job["error"]) == ("1", "done", snapshot_id, None)
    assert (job["done"], job["total"]) == (8, 8)
    with pytest.raises(CheckpointError):
        reindex(["--checkpoint", str(tmp_path / "none"), "--job", str(path)])
    job = json.loads(path.read_text(encoding="utf-8"))
    assert (job["state"], job["snapshot"]) == ("failed", None)
    assert "not a directory" in job["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_terminated_reports_it(
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
        cli.main(["reindex", "--force", "--job", str(path)])
    assert end.value.code == 130
    job = json.loads(path.read_text(encoding="utf-8"))
    assert (job["state"], job["error"]) == ("failed", "it was interrupted")
    assert SnapshotStore(here).list() == before
    assert not list((here / "snapshots").glob(".tmp-*"))
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_full_disk_is_reported_and_leaves_nothing_behind(
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
    for command in ("build", "verify", "publish", "rollback", "remove", "list"):
        assert command in out


def test_a_full_export_replaces_the_catalogue(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, tmp_path: Path, capsys: Captured
) -> None:
    lines = items_file.read_text(encoding="utf-8").splitlines(keepends=True)
    smaller = tmp_path / "smaller.jsonl"
    smaller.write_text("".join(lines[:6]), encoding="utf-8")
    build = ["build", "--checkpoint", str(bag_of_words_checkpoint), "--publish", "--items"]
    index([*build, str(items_file)])
    index([*build, str(smaller)])
    assert "; 2 stored items are not in the file and stay (--replace deletes them)" in capsys.readouterr().out
    index([*build, str(smaller), "--replace"])
    assert "0 updated, 6 unchanged, 2 deleted" in capsys.readouterr().out
    index([*build, str(items_file), "--replace"])
    assert "2 of the created items had been deleted before: 'pot/1', 'ערב'" in capsys.readouterr().out
    smaller.write_text("".join(lines[:4]), encoding="utf-8")
    with pytest.raises(InputError, match=r"4 of 8 stored items \(50%\) are not in the file"):
        index([*build, str(smaller), "--replace"])
    index([*build, str(smaller), "--replace", "--max-delete", "0.5", "--json"])
    assert answer(capsys)["deleted"] == 4


def test_a_skipped_line_does_not_delete_its_item(here: Path, items_file: Path, bag_of_words_checkpoint: Path) -> None:
    build = ["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file)]
    index(build)
    text = items_file.read_text(encoding="utf-8")
    items_file.write_text(text.replace('{"item_id": "mug-1"', "{item_id: mug-1"), encoding="utf-8")
    with pytest.raises(FileFormatError, match="line 5: not JSON"):
        index([*build, "--on-error", "skip", "--replace"])


def test_another_model_updates_no_item(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, other_checkpoint: Path, capsys: Captured
) -> None:
    for checkpoint in (bag_of_words_checkpoint, other_checkpoint):
        index(["build", "--checkpoint", str(checkpoint), "--items", str(items_file)])
    out = capsys.readouterr().out
    assert "0 items created, 0 updated, 8 unchanged (8 of them encoded again by this model)" in out


def test_without_a_change_the_command_says_so(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, capsys: Captured
) -> None:
    index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--items", str(items_file), "--publish"])
    (snapshot_id,) = SnapshotStore(here).list()
    reindex([])
    assert f"nothing has changed since snapshot {snapshot_id} was made" in capsys.readouterr().out
    assert SnapshotStore(here).list() == [snapshot_id]


def test_the_list_shows_what_may_be_removed(
    here: Path, items_file: Path, bag_of_words_checkpoint: Path, other_checkpoint: Path, capsys: Captured
) -> None:
    build = ["build", "--items", str(items_file), "--checkpoint"]
    index([*build, str(bag_of_words_checkpoint), "--publish"])
    index([*build, str(other_checkpoint), "--publish"])
    index(["build", "--checkpoint", str(bag_of_words_checkpoint), "--force", "--json"])
    capsys.readouterr()
    index(["list", "--json"])
    rows = answer(capsys)
    assert sorted(row["state"] for row in rows) == ["kept", "not published", "served"]
    (spare,) = (row["snapshot"] for row in rows if row["state"] == "not published")
    index(["remove", spare])
    assert f"removed snapshot {spare}" in capsys.readouterr().out
    index(["list", "--json"])
    assert [row["state"] for row in answer(capsys)].count("not published") == 0
