"""Run directories of version 0.1.0, before settings were renamed: listed, evaluated and resumed by this version.

training/done is a finished SASRec, training/stopped a Recformer that SIGTERM stopped after step 5 of 8. That version
continued it to the losses below.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from training.cli import list_runs
from training.config.load import load_stored_config
from training.engine import run
from training.evaluation.cli import evaluate

RUNS = Path(__file__).parent / "training"
DATA = (RUNS / "items.jsonl", RUNS / "interactions.csv")
CONTINUED = {6: 2.3597710132598877, 7: 2.718247175216675, 8: 2.1324801445007324}


def test_they_are_listed_with_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    list_runs([str(RUNS), "--json"])
    found = {Path(entry["path"]).name: entry for entry in json.loads(capsys.readouterr().out)}
    assert {name: (entry["state"], entry["steps"]) for name, entry in found.items()} == {
        "done": ("done", 2),
        "stopped": ("stopped", 5),
    }
    assert found["stopped"]["settings"]["pretrain.whole_words_cross_attributes"] is True
    assert found["stopped"]["settings"]["adversarial.warmup_epochs"] == 3


@pytest.mark.slow
def test_a_checkpoint_scores_what_it_scored(capsys: pytest.CaptureFixture[str]) -> None:
    items, interactions = map(str, DATA)
    argv = ["--items", items, "--interactions", interactions, "--split", "valid", "--device", "cpu", "--json"]
    evaluate([str(RUNS / "done" / "checkpoint"), *argv])
    rows = json.loads(capsys.readouterr().out)["rows"]
    [ndcg] = [row["ndcg"] for row in rows if (row["method"], row["protocol"]) == ("sasrec", "all items")]
    best = json.loads((RUNS / "done" / "run.json").read_text())["best"]["ndcg"]
    assert ndcg == pytest.approx(best, abs=1e-6)


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_it_would_have(tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    shutil.copytree(RUNS / "stopped", out)
    ended = run.train(load_stored_config(out / "config.toml"), *DATA, out)
    assert (ended.steps, ended.ended) == (8, "all steps done")
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = {entry["step"]: entry["loss"] for entry in entries if entry["kind"] == "step" and entry["step"] > 5}
    assert losses == pytest.approx(CONTINUED, rel=1e-5)
    assert ended.best.ndcg == pytest.approx(0.35317495043419234, abs=1e-6)
