"""Retraining by itself: when it starts, and that what comes of it is in the job's file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seqrec.errors import InputError
from service import jobs
from service.jobs import AutoRetrainer, JobRunner
from service.settings import Settings, load_settings
from tests.service.test_reindex import Counting, MakeClient, until

pytestmark = pytest.mark.slow

HOUR = 3600.0


def state_made(ago: float) -> Any:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - ago))
    return SimpleNamespace(snapshot=SimpleNamespace(manifest=SimpleNamespace(created=created)))


@pytest.mark.parametrize(
    ("every", "last", "made", "starts"),
    [
        (24 * HOUR, None, 25 * HOUR, 1),  # never before, and the snapshot is older
        (24 * HOUR, None, 23 * HOUR, 0),
        (24 * HOUR, 25 * HOUR, 1 * HOUR, 1),  # a reindex has made another snapshot since
        (24 * HOUR, 23 * HOUR, 99 * HOUR, 0),
        (None, 99 * HOUR, 99 * HOUR, 0),
    ],
)
def test_when_it_starts(tmp_path: Path, every: float | None, last: float | None, made: float, starts: int) -> None:
    runner = Counting()
    if last is not None:
        (tmp_path / "retrain").mkdir()
        (tmp_path / "retrain" / "last.json").write_text(json.dumps({"started": time.time() - last}))
    by_itself = AutoRetrainer(runner, tmp_path, every)  # type: ignore[arg-type]
    by_itself.maybe_start(state_made(made))
    by_itself.maybe_start(state_made(made))
    assert runner.started == starts, "and not again at once"


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86_400), ("1.5d", 129_600), ("90m", 5400), ("0m", 60)])
def test_how_often_is_a_setting(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    monkeypatch.setenv("SEQREC_RETRAIN_EVERY", text)
    assert load_settings().retrain_seconds == seconds
    for wrong in ("daily", "24", "-1h", "1w"):
        monkeypatch.setenv("SEQREC_RETRAIN_EVERY", wrong)
        with pytest.raises(InputError, match="SEQREC_RETRAIN_EVERY"):
            load_settings()


@pytest.mark.timeout(900)  # its process has a low priority, so a busy machine takes long
def test_a_service_starts_it_and_goes_on(make_client: MakeClient, home: Path) -> None:
    (home / "retrain").mkdir()
    (home / "retrain" / "last.json").write_text('{"format": 1, "started": 0, "result": "failed"}')
    client = make_client(retrain_every="24h")
    served = client.get("/readyz").json()["snapshot"]
    until(lambda: list((home / "jobs").glob("*.json")))
    [path] = (home / "jobs").glob("*.json")
    until(lambda: json.loads(path.read_text())["state"] in ("done", "failed"), 600)
    job = json.loads(path.read_text())
    assert (job["command"], job["state"], job["result"]) == ("retrain", "done", "refused"), job
    assert "users have events" in job["reason"]
    assert client.get(f"/reindex/{job['id']}").json()["state"] == "done"
    assert 'seqrec_retrains_total{by="automatic"} 1.0' in client.get("/metrics").text
    assert client.get("/readyz").json()["snapshot"] == served
    time.sleep(0.2)
    assert len(list((home / "jobs").glob("*.json"))) == 1
    # A reindex is another command, which may run meanwhile.
    path.write_text(json.dumps(job | {"state": "running", "process": 1}))
    assert jobs.command_of(path) == "retrain"
    assert JobRunner(Settings(home=home), "reindex").running_job() is None
