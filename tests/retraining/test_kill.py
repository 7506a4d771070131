"""A retraining that is killed leaves what is served as it was, and the next one does it all.

`tests/e2e/killing.py` says what a step is: before and after each sync, rename, file and SQL statement that writes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tools.service_process import environment
from index.catalogue.open import open_catalogue
from index.snapshot.publication import check_servable, published
from index.snapshot.snapshot import SnapshotStore
from seqrec.encoder import load_model
from tests.retraining.test_retrain import add_day, served

ROOT = Path(__file__).parents[2]
KILLS = (
    "before open(retrain.lock",
    "before open(interactions.csv",
    "after rename(.tmp-start-",
    "before rename(.tmp-state.pt-",
    "curves.png, w",
    "before open(vectors.npy",
    "before INSERT INTO log (op, time, snapshot_id)",
)
"""The first step of each name; the last is the publication itself."""


def order(process: subprocess.Popen[str], home: Path, at: int | str = 0) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"do": "retrain", "home": str(home), "redis_url": None, "at": at}) + "\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def check_served(home: Path) -> str:
    """What a restart would serve is whole, and its model loads."""
    with closing(open_catalogue(home)) as catalogue:
        snapshot_id = published(catalogue)
        assert snapshot_id is not None
        snapshot = SnapshotStore(home).verify(snapshot_id)
        check_servable(home, catalogue, snapshot.manifest)
    load_model(home / "checkpoints" / snapshot.manifest.checkpoint[:12], "cpu")
    return snapshot_id


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_anywhere_it_leaves_what_is_served(home: Path, tmp_path: Path) -> None:
    add_day(home, 10)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.killing"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path / "killing"),
    )
    try:
        whole = order(process, shutil.copytree(home, tmp_path / "whole"))
        assert whole["result"] == "published", whole
        before = served(home)
        for step in KILLS:
            answer = order(process, home, step)
            assert answer["killed"], f"no step {step}: {answer}"
            assert check_served(home) == before, f"killed {answer['step']}"
        again = order(process, home)
        assert again["result"] == "published"
        assert check_served(home) != before
        assert not (home / "retrain" / ".work").exists()
    finally:
        process.kill()
        process.communicate()
