"""The commands on a catalogue in Redis, and moving it from there to SQLite without encoding anything again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index.backup.cli import catalogue
from index.build.cli import index, reindex
from index.catalogue.open import open_catalogue
from seqrec.encoder import Encoder
from seqrec.errors import SnapshotError


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each call has encoded."""
    calls: list[int] = []
    original = Encoder.encode_item_tokens

    def counting(self: Encoder, items: Any, *rest: Any) -> Any:
        if len(items):
            calls.append(len(items))
        return original(self, items, *rest)

    monkeypatch.setattr(Encoder, "encode_item_tokens", counting)
    return calls


@pytest.mark.slow
def test_index_in_redis_then_move_to_sqlite(
    tmp_path: Path,
    redis_url: str,
    items_file: Path,
    bag_of_words_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    encoded: list[int],
) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEQREC_REDIS_URL", redis_url)
    model = ["--checkpoint", str(bag_of_words_checkpoint)]
    index(["build", *model, "--items", str(items_file), "--publish", "--json"])
    one = printed(capsys)
    assert (one["count"], one["created"], one["published"], one["seq"]) == (8, 8, True, 8)
    assert not (tmp_path / "home" / "catalogue.sqlite3").exists()
    shared = open_catalogue(redis_url)
    _, entry = next(shared.scan())
    shared.put([replace(entry, item=replace(entry.item, available=False))])
    reindex(["--json"])
    two = printed(capsys)
    assert (two["count"], two["published"], two["seq"]) == (8, True, 10)
    index(["rollback", "--json"])
    assert printed(capsys) == {"snapshot": one["snapshot"], "seq": 12}
    index(["verify", two["snapshot"], "--json"])
    assert printed(capsys)["whole"] is True
    with shared.lease("reindex"), pytest.raises(SnapshotError, match="is already running"):
        reindex(["--json"])
    shared.close()
    assert encoded == [8]

    catalogue(["dump", str(tmp_path / "dump.jsonl.gz")])
    monkeypatch.delenv("SEQREC_REDIS_URL")
    catalogue(["restore", str(tmp_path / "dump.jsonl.gz")])
    capsys.readouterr()
    reindex([*model, "--json"])
    moved = printed(capsys)
    assert (moved["count"], moved["published"]) == (8, True)
    assert encoded == [8]
    index(["verify", moved["snapshot"]])
