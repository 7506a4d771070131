"""`seqrec evaluate`: several checkpoints, files and pictures, and which split a checkpoint was trained with."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seqrec.checkpoint import save_checkpoint
from seqrec.cli import main
from seqrec.errors import InputError
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig
from training.evaluation.cli import evaluate
from training.evaluation.groups import EVENTS, LENGTHS

PNG = b"\x89PNG\r\n\x1a\n"
Ask = Callable[..., None]


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two checkpoints, in runs/small and runs/large."""
    paths = [tmp_path / "runs" / name / "checkpoint" for name in ("small", "large")]
    for path, dim in zip(paths, (8, 64), strict=True):
        save_checkpoint(path, "bag_of_words", BagOfWords(BagOfWordsConfig(dim=dim)))
    return [str(path) for path in paths]


@pytest.fixture
def ask(world_files: tuple[Path, Path]) -> Ask:
    items, interactions = world_files
    data = ["--items", str(items), "--interactions", str(interactions), "--device", "cpu", "--threads", "1"]

    def run(*argv: str) -> None:
        evaluate([*argv, *data, "--resamples", "30"])

    return run


@pytest.mark.slow
def test_several_checkpoints_stand_in_one_table_and_are_tested_against_each_other(
    ask: Ask, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(*runs)
    said = capsys.readouterr().out
    for name in ("small", "large", "last item, small", "last item, large", "popularity"):
        assert f"\n{name} " in said
    assert "large - small: " in said
    assert "small - last item, large" not in said
    ask(*runs, "--json", "--k", "10", "5")
    record = json.loads(capsys.readouterr().out)
    assert (record["k"], record["ks"], list(record["checkpoints"])) == (5, [5, 10], ["small", "large"])
    (test,) = [
        test
        for test in record["tests"]
        if (test["method"], test["other"], test["figure"]) == ("large", "small", "NDCG@5")
        and test["protocol"] == "all items"
    ]
    values = {row["method"]: row["ndcg"] for row in record["rows"] if row["protocol"] == "all items"}
    assert test["difference"] == pytest.approx(values["large"] - values["small"])
    assert test["low"] <= test["difference"] <= test["high"]
    assert 1 / 31 <= test["p"] <= 1
    figures = record["rows"][0]["figures"]
    assert {"NDCG@5", "NDCG@10", "Recall@10", "MRR@5", "MRR", "coverage@5", "popularity@10"} <= figures.keys()
    with pytest.raises(InputError, match="the same checkpoint is listed twice"):
        ask(runs[0], runs[0])


def test_precisions_of_one_checkpoint_are_compared(
    ask: Ask, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(runs[0], "--precision", "float32", "int8", "--json")
    record = json.loads(capsys.readouterr().out)
    methods = {row["method"] for row in record["rows"]}
    assert {"bag_of_words, float32", "bag_of_words, int8", "last item, bag_of_words, int8"} <= methods
    (test,) = [
        test
        for test in record["tests"]
        if (test["method"], test["other"]) == ("bag_of_words, int8", "bag_of_words, float32")
        and (test["figure"], test["protocol"]) == ("NDCG@10", "all items")
    ]
    assert abs(test["difference"]) < 0.05


def test_coverage_and_popularity_are_those_of_what_is_recommended(
    ask: Ask, runs: list[str], world_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(runs[0], "--json", "--k", "3")
    rows = json.loads(capsys.readouterr().out)["rows"]
    (popularity,) = [row for row in rows if (row["method"], row["protocol"]) == ("popularity", "all items")]
    lines = world_files[1].read_text().splitlines()[1:]
    training = [item for user, item, step in (line.split(",") for line in lines) if int(step) < 10]
    counts = sorted((training.count(item) for item in set(training)), reverse=True)
    assert popularity["figures"]["popularity@3"]["value"] == pytest.approx(np.mean(counts[:3]))
    assert popularity["figures"]["coverage@3"] == {"value": 3 / 30, "low": None, "high": None}  # the same for all


@pytest.mark.slow
def test_out_holds_a_report_in_words_in_json_and_in_pictures(
    ask: Ask, runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    ask(*runs, "--out", str(out))
    capsys.readouterr()
    pictures = {"methods.png", "ndcg_by_history_length.png", "ndcg_by_target_popularity.png"}
    assert {path.name for path in out.iterdir()} == {"report.md", "report.json"} | pictures
    assert all((out / name).read_bytes().startswith(PNG) for name in pictures)
    text = (out / "report.md").read_text()
    assert all(f"]({name})" in text for name in pictures)
    assert "## NDCG@10 by history length" in text
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
    record = json.loads((out / "report.json").read_text())
    for breakdown in ("history length", "target popularity"):
        rows = [row for row in record["breakdowns"] if row["breakdown"] == breakdown and row["method"] == "small"]
        assert sum(row["users"] for row in rows if row["protocol"] == "all items") == 60
    with pytest.raises(InputError, match="exists already"):
        ask(*runs, "--out", str(out))
    ask(*runs, "--out", str(out), "--overwrite")


@pytest.mark.parametrize(
    ("more", "heading"),
    [
        ([], "test: the last item of 60 users, ranked among 30 items; averages over users (split: leave-one-out)"),
        (["--split-by", "time"], "test: the first item of the test period of 60 users"),
        (["--split-by", "time", "--targets", "all", "--split", "valid"], "valid: all items of the validation period"),
        (["--split-by", "last-basket"], "test: the last basket of 60 users"),
    ],
)
def test_the_output_says_what_was_held_out(
    ask: Ask, runs: list[str], capsys: pytest.CaptureFixture[str], more: list[str], heading: str
) -> None:
    ask(runs[0], *more)
    assert capsys.readouterr().out.startswith(heading)


@pytest.mark.slow
def test_a_run_trained_with_another_split_is_said_and_not_refused(
    ask: Ask, runs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = Path(runs[0]).parent / "config.toml"
    config.write_text('[data]\nsplit = "time"\n[optimizer]\nmax_steps = 1\n')
    with caplog.at_level(logging.WARNING):
        ask(*runs)
    assert caplog.text.count("was trained with the split") == 1
    assert "was trained with the split time, first later item and is evaluated with leave-one-out" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ask(runs[0], "--split-by", "time")
    assert "was trained with the split" not in caplog.text


CONFIG = """
threads = 1
device = "cpu"
[data]
split = "{split}"
[text]
attributes = ["title"]
vocab_size = 320
[model]
name = "embedding_bag"
[joint]
negatives = 8
[optimizer]
max_steps = 2
[validation]
checks = 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("split", ["time", "last-basket"])
def test_training_holds_out_what_evaluation_does(
    embedding_bag: type, world_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    config, out = tmp_path / "config.toml", tmp_path / "run"
    config.write_text(CONFIG.format(split=split))
    data = ["--items", str(world_files[0]), "--interactions", str(world_files[1])]
    main(["train", *data, "--config", str(config), "--out", str(out)])
    capsys.readouterr()
    main(["evaluate", str(out / "checkpoint"), *data, "--split-by", split, "--split", "valid", "--json"])
    said = capsys.readouterr()
    record, run = json.loads(said.out), json.loads((out / "run.json").read_text())
    assert record["data_digest"] == run["data_digest"]
    assert record["split_by"].startswith(split)
    assert "may have been in training" not in said.err


def test_buckets_begin_at_the_least_there_can_be() -> None:
    assert (LENGTHS[0], EVENTS[0]) == (1, 0)
    for begins in (LENGTHS, EVENTS):
        assert list(begins) == sorted(set(begins))


def test_the_suite_is_a_command_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate(["--suite", "paper", "DATA", "--out", "suite"])
    assert "seqrec suite paper DATA" in capsys.readouterr().err


@pytest.mark.slow
def test_what_cannot_be_written_is_refused_before_the_work(ask: Ask, runs: list[str], tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("precious")
    for argv in (["--out", str(plain), "--overwrite"], ["--out", str(plain / "x")], ["--markdown", str(plain / "x")]):
        with pytest.raises(InputError, match=r"plain is a file; choose"):
            ask(runs[0], *argv)
    with pytest.raises(InputError, match=r"--markdown: .* is a directory; name a file"):
        ask(runs[0], "--markdown", str(tmp_path))
    assert plain.read_text() == "precious"
    ask(runs[0], "--markdown", str(tmp_path / "new" / "table.md"))
    assert (tmp_path / "new" / "table.md").is_file()


@pytest.mark.parametrize("argv", [["--seed", "-1"], ["--threads", "-1"], ["--show-users", "-1"], ["--k", "0"]])
def test_numbers_that_make_no_sense_are_wrong_usage(
    ask: Ask, runs: list[str], argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        ask(runs[0], *argv)
    assert exited.value.code == 2
    assert "is not a whole number" in capsys.readouterr().err
