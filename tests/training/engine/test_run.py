from __future__ import annotations

import json
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from seqrec import load_model
from seqrec.cli import main
from seqrec.errors import CheckpointError, InputError, SeqrecError
from training.cli import list_runs, train
from training.config.load import load_config
from training.config.schema import RunConfig, TextConfig
from training.engine import run
from training.evaluation.cli import evaluate
from training.stages.joint import JointStage

TINY = """
seed = 3
device = "cpu"
threads = 1
[text]
attributes = ["title"]
vocab_size = 320
[model]
name = "{model}"
[model.settings]
{settings}
[joint]
batch_size = 16
negatives = 16
[optimizer]
learning_rate = 1e-3
max_steps = {steps}
[validation]
checks = 2
"""
RECFORMER = """hidden_size = 32
num_layers = 1
num_heads = 2
intermediate_size = 64
attention_window = 8
max_token_num = 40
max_position_embeddings = 42
max_item_embeddings = 6
dropout = 0.0
"""


def config_file(folder: Path, model: str = "embedding_bag", settings: str = "dim = 16", steps: int = 8) -> Path:
    path = folder / "run.toml"
    path.write_text(TINY.format(model=model, settings=settings, steps=steps))
    return path


def arguments(files: tuple[Path, Path]) -> list[str]:
    return ["--items", str(files[0]), "--interactions", str(files[1])]


@pytest.fixture
def config(tmp_path: Path, embedding_bag: type) -> Path:
    return config_file(tmp_path)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_run_leaves_all_that_made_it(config: Path, world_files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "runs" / "one"
    asked = ["--config", str(config), "--out", str(out), "--set", "seed=5", "--max-minutes", "9"]
    train([*arguments(world_files), *asked])
    assert {path.name for path in out.iterdir()} == {
        *("config.toml", "run.json", "metrics.jsonl", "tensorboard", "curves.png", "checkpoint", "last")
    }
    assert [path.name for path in (out / "last").iterdir()] == ["checkpoint"]
    assert [path.name for path in out.parent.iterdir()] == ["one"]
    written = load_config(out / "config.toml")
    assert written == load_config(config, ["seed=5", "optimizer.max_minutes=9.0"])
    about = json.loads((out / "run.json").read_text())
    assert (about["state"], about["seed"], about["stages"]) == ("done", 5, ["joint"])
    assert about["checkpoint_digest"] == load_model(out / "checkpoint", "cpu").checkpoint.digest
    assert len(about["data_digest"]) == 64
    kinds = [entry["kind"] for entry in lines_of(out / "metrics.jsonl")]
    assert (kinds.count("step"), kinds.count("validation"), kinds[-1]) == (8, 2, "end")


@pytest.mark.slow
def test_recformer_learns_the_rule_and_the_same_seed_gives_the_same_weights(
    world_files: tuple[Path, Path], tmp_path: Path
) -> None:
    config = load_config(config_file(tmp_path, "recformer", RECFORMER, steps=250))
    first = run.train(config, *world_files, tmp_path / "first")
    assert first.best.ndcg > 0.8  # the next thing in the same colour; 30 items
    run.train(config, *world_files, tmp_path / "second")
    digests = [
        json.loads((tmp_path / name / "run.json").read_text())["checkpoint_digest"] for name in ("first", "second")
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_a_training_that_the_clock_cut_short_says_so(
    world_files: tuple[Path, Path], tmp_path: Path, embedding_bag: type, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_file(tmp_path, steps=1_000_000)
    asked = ["--config", str(config), "--out", str(tmp_path / "out"), "--max-minutes", "0.005"]
    train([*arguments(world_files), *asked])
    assert re.search(r"the time limit \(optimizer\.max_minutes\) ended joint after \d+ of 1000000 steps", caplog.text)
    train([*arguments(world_files), "--config", str(config_file(tmp_path)), "--out", str(tmp_path / "all")])
    assert caplog.text.count("ended joint after") == 1


def test_a_run_that_is_there_is_not_overwritten_by_mistake(
    config: Path, world_files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "precious").touch()
    asked = [*arguments(world_files), "--config", str(config), "--out", str(out)]
    with pytest.raises(InputError, match=r"exists already \(not a run\); choose another directory, or add --overwrite"):
        train(asked)
    assert (out / "precious").exists()
    train([*asked, "--overwrite"])
    assert not (out / "precious").exists()
    assert (out / "checkpoint").is_dir()


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_the_same_command_ends(
    config: Path,
    world_files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    calls = iter(range(5))
    plain = JointStage.loss

    def interrupted(*anything: Any) -> Any:
        if next(calls, None) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(*anything)

    monkeypatch.setattr(JointStage, "loss", interrupted)
    out = tmp_path / "runs" / "one"
    asked = ["train", *arguments(world_files), "--config", str(config), "--out", str(out)]
    with pytest.raises(SystemExit) as exited:
        main(asked)
    assert exited.value.code == 130
    assert "joint: stopped after step 5" in caplog.text
    assert json.loads((out / "run.json").read_text())["state"] == "running"
    assert (out / "last" / "state.pt").exists()
    main(asked)
    assert f"resuming {out}: stage joint, after step 5" in caplog.text
    steps = [entry["step"] for entry in lines_of(out / "metrics.jsonl") if entry["kind"] == "step"]
    assert steps == list(range(1, 9))


@pytest.mark.slow
def test_a_full_disk_leaves_a_run_that_goes_on_when_there_is_room(
    config: Path, world_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*anything: Any, **more: Any) -> str:
        raise OSError(28, "No space left on device")

    out = tmp_path / "runs" / "one"
    asked = [*arguments(world_files), "--config", str(config), "--out", str(out)]
    with monkeypatch.context() as patched:
        patched.setattr(run, "save_checkpoint", full)
        with pytest.raises(OSError, match="No space left"):
            train(asked)
    assert not (out / "checkpoint").exists()
    train(asked)
    assert load_model(out / "checkpoint", "cpu").dim == 16
    assert [entry["step"] for entry in lines_of(out / "metrics.jsonl") if entry["kind"] == "step"] == list(range(1, 9))


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint(
    config: Path, world_files: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = run.train(load_config(config, ["optimizer.max_steps=60"]), *world_files, tmp_path / "first")
    checkpoint = str(tmp_path / "first" / "checkpoint")
    plain = load_config(config)
    continued = RunConfig(
        seed=4,
        device="cpu",
        model=load_config(config, [f"model.start_from={checkpoint}", "model.settings={}"]).model,
        joint=plain.joint,
        optimizer=plain.optimizer,
        validation=plain.validation,
    )
    second = run.train(continued, *world_files, tmp_path / "second")
    assert second.best.ndcg > first.best.ndcg - 0.1
    run.train(load_config(config, [f"model.start_from={checkpoint}"]), *world_files, tmp_path / "third")
    assert "has its own model and item text" in caplog.text
    assert load_config(tmp_path / "third" / "config.toml").text == TextConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=recfromer", r"model: no model 'recfromer', did you mean 'recformer'\?; there are"),
        (
            "model.settings.hiden_size=3",
            r"hiden_size: unknown setting, did you mean 'hidden_size'\?; there are ",
        ),
        (
            "model.settings.vocab_size=3",
            r"model\.settings\.vocab_size: follows from the tokenizer; set text",
        ),
        ("model.settings.num_heads=5", "hidden_size 32 is not a multiple of num_heads 5"),
        ("device=tpu", "no device 'tpu'"),
        ("text.attributes=['colour']", "no item has text|has no text: nothing in colour"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    world_files: tuple[Path, Path], tmp_path: Path, override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path, "recformer", RECFORMER, steps=30)
    with pytest.raises(SystemExit) as exited:
        main(
            ["train", *arguments(world_files), "--config", str(config), "--out", str(tmp_path / "o"), "--set", override]
        )
    assert exited.value.code == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


def test_a_training_that_diverges_says_so_and_is_not_gone_on_with(
    world_files: tuple[Path, Path], tmp_path: Path
) -> None:
    config, out = config_file(tmp_path, "recformer", RECFORMER, steps=30), tmp_path / "o"
    with pytest.raises(SeqrecError, match=r"lower optimizer\.learning_rate|not finite"):
        run.train(load_config(config, ["optimizer.learning_rate=1e9"]), *world_files, out)
    assert json.loads((out / "run.json").read_text())["state"] == "failed"
    with pytest.raises(InputError, match=r"is a failed run: .*add --overwrite"):
        run.train(load_config(config), *world_files, out)


def test_a_text_encoder_sets_its_own_size(world_files: tuple[Path, Path], tmp_path: Path) -> None:
    config = config_file(tmp_path, "recformer", RECFORMER)
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    with pytest.raises(InputError, match=r"encoder has neither a checkpoint nor a text encoder"):
        run.train(load_config(config, [f"model.start_from={encoder}"]), *world_files, tmp_path / "o")
    (encoder / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"model\.settings\.\w+: comes from .*encoder; only attention_window"):
        run.train(load_config(config, [f"model.start_from={encoder}"]), *world_files, tmp_path / "o")
    empty = load_config(config, [f"model.start_from={encoder}", "model.settings={}", "model.name=bag_of_words"])
    with pytest.raises(InputError, match=r"bag_of_words cannot start from .*encoder"):
        run.train(empty, *world_files, tmp_path / "o")


@pytest.mark.slow
def test_broken_lines_stop_a_run_or_are_skipped(
    config: Path, world_files: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with world_files[1].open("a") as file:
        file.write("u0,unicorn,99\nu0,red-mug\n")
    asked = [*arguments(world_files), "--config", str(config), "--out", str(tmp_path / "o")]
    with pytest.raises(InputError, match=r"interactions\.csv, line 722: item 'unicorn' is not in the items file"):
        train(asked)
    train([*asked, "--on-error", "skip"])
    assert "skipped 2 lines" in caplog.text


@pytest.mark.slow
def test_evaluate_prints_a_table_json_and_markdown(
    config: Path, world_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train([*arguments(world_files), "--config", str(config), "--out", str(out)])
    said = capsys.readouterr().out
    assert f"{out}: all steps done after 8 steps" in said
    asked = [str(out / "checkpoint"), *arguments(world_files), "--device", "cpu", "--threads", "1"]
    evaluate([*asked, "--markdown", str(tmp_path / "table.md"), "--show-users", "2"])
    printed = capsys.readouterr().out
    assert "test: the last item of 60 users, ranked among 30 items" in printed
    assert "user u15: history, the last 5 of 11 items" in printed
    assert (tmp_path / "table.md").read_text().count("| embedding_bag |") == 1
    evaluate([*asked, "--json", "--split", "valid", "--show-users", "1"])
    record = json.loads(capsys.readouterr().out)
    trained = json.loads((out / "run.json").read_text())
    assert (record["split"], record["users"], record["items"]) == ("valid", 60, 30)
    assert record["data_digest"] == trained["data_digest"]
    assert record["checkpoint_digest"] == trained["checkpoint_digest"]
    (row,) = [row for row in record["rows"] if row["method"] == "embedding_bag" and row["protocol"] == "all items"]
    assert row["ndcg"] == pytest.approx(trained["best"]["ndcg"], abs=1e-6)
    assert len(record["users_shown"][0]["items"]) == 5


def test_evaluate_refuses_what_is_no_checkpoint(world_files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a directory"):
        evaluate([str(tmp_path / "absent"), *arguments(world_files)])


@pytest.mark.parametrize("command", [train, evaluate])
def test_help_is_given(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        command(["--help"])
    assert exited.value.code == 0
    assert "--on-error" in capsys.readouterr().out


def test_threads_are_those_asked_for_or_the_physical_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        run.set_threads(1)
        assert torch.get_num_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        run.set_threads(0)
        assert torch.get_num_threads() == 1
        monkeypatch.delenv("OMP_NUM_THREADS")
        run.set_threads(0)
        assert 1 <= torch.get_num_threads() <= len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_model_whose_scores_all_tie_is_not_reported_as_perfect(
    embedding_bag: type,
    world_files: tuple[Path, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    items = [json.loads(line) for line in world_files[0].read_text().splitlines()]
    same = tmp_path / "same.jsonl"
    same.write_text("".join(json.dumps(item | {"attributes": {"title": "Unknown"}}) + "\n" for item in items))
    out = tmp_path / "runs" / "same"
    config = str(config_file(tmp_path))
    train(["--items", str(same), "--interactions", str(world_files[1]), "--config", config, "--out", str(out)])
    record = json.loads((out / "run.json").read_text())
    assert record["best"]["ndcg"] == 1.0
    expected = sum(1 / math.log2(place + 1) for place in range(1, 11)) / len(items)
    assert f"validation NDCG@10 {expected:.4f}" in capsys.readouterr().out
    assert "1.0000 if the target comes first and 0.0000 if it comes last. Do many items have the same" in caplog.text
    list_runs([str(tmp_path / "runs"), "--json"])
    [listed] = json.loads(capsys.readouterr().out)
    assert listed["ndcg"] == pytest.approx(expected)


def test_sizes_that_no_memory_holds_are_refused_with_the_way_out(
    embedding_bag: type, world_files: tuple[Path, Path], tmp_path: Path
) -> None:
    config = load_config(config_file(tmp_path), ["model.settings.dim=1000000000000"])
    with pytest.raises(SeqrecError, match=r"not enough memory: lower the batch size .*optimizer\.chunk"):
        run.train(config, *world_files, tmp_path / "out")


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_an_output_that_cannot_be_created_is_refused_before_the_work(
    config: Path, world_files: tuple[Path, Path], tmp_path: Path, overwrite: list[str]
) -> None:
    (tmp_path / "plain").write_text("precious")
    asked = [*arguments(world_files), "--config", str(config), *overwrite]
    with pytest.raises(InputError, match=r"--out: .*plain/x cannot be created, since .*plain is a file"):
        train([*asked, "--out", str(tmp_path / "plain" / "x")])
    with pytest.raises(InputError, match=r"--out: .*plain is a file; choose a directory"):
        train([*asked, "--out", str(tmp_path / "plain")])
    assert (tmp_path / "plain").read_text() == "precious"
