"""`seqrec suite paper` on a small world: what is made, that it is made once, and what the report says."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seqrec.cli import main
from seqrec.errors import InputError, SeqrecError
from tests.training.conftest import write_world
from training.config.load import load_config
from training.data.dataset import Dataset
from training.evaluation.baselines import popularity
from training.evaluation.evaluation_set import read_folder
from training.suite.cli import suite
from training.suite.data import PartlyTrained, sample_users, write_folder
from training.suite.plan import TABLES, Experiment, Plan, TableRow, experiments_of
from training.suite.recipes import MODELS, Recipes
from training.suite.results import Results, Value
from training.suite.runner import Suite, SuiteConfig, time_limit
from training.suite.store import ExperimentStore

PNG = b"\x89PNG\r\n\x1a\n"
TINY = [
    "recformer:text.vocab_size=320",
    "recformer:model.settings.hidden_size=16",
    "recformer:model.settings.num_layers=1",
    "recformer:model.settings.num_heads=2",
    "recformer:model.settings.intermediate_size=16",
    "recformer:pretrain.batch_size=16",
    "recformer:pretrain.optimizer.max_steps=4",
    "recformer:pretrain.validation.checks=2",
    "recformer:stage1.optimizer.max_epochs=1",
    "recformer:stage2.optimizer.max_epochs=1",
    "recformer:joint.optimizer.max_epochs=1",
    "unisrec:model.settings.dim=8",
    "unisrec:model.settings.inner=8",
    "unisrec:pretrain.batch_size=16",
    "unisrec:pretrain.optimizer.max_epochs=1",
    "unisrec:sequence.optimizer.max_epochs=1",
    "gru4rec:model.settings.dim=8",
    "gru4rec:optimizer.max_epochs=2",
    "sasrec:model.settings.dim=8",
    "sasrec:optimizer.max_epochs=1",
    "recguru:model.settings.dim=8",
    "recguru:adversarial.optimizer.max_epochs=2",
    "recguru:adversarial.warmup_epochs=1",
    "recguru:optimizer.max_epochs=1",
    "validation.checks=1",
]
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A data set with cold items, and another one to pretrain on."""
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data, other):
        folder.mkdir()
        write_world(folder, users=30, events=8)
    with (data / "items.jsonl").open("a") as items, (data / "interactions.csv").open("a") as events:
        for number in range(6):
            record = {"item_id": f"new-{number}", "attributes": {"title": f"red mug number {number}"}}
            items.write(json.dumps(record) + "\n")
            history = ["red-mug", "red-lamp", "red-desk", f"new-{number}"]
            events.writelines(f"n{number},{item},{step}\n" for step, item in enumerate(history))
    return data, other


@pytest.fixture
def ask(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """-> report.json"""

    def run(*argv: str, out: str = "out") -> dict[str, Any]:
        changes = [part for change in TINY for part in ("--set", change)]
        fixed = ["--out", str(tmp_path / out), "--quick", "--threads", "1", "--device", "cpu", *changes]
        suite(["paper", str(folders[0]), *fixed, "--json", *argv])
        record: dict[str, Any] = json.loads(capsys.readouterr().out)
        return record

    return run


def made(out: Path) -> dict[str, int]:
    """Cells with what they measured, and when."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (out / "cells").glob("*/evaluation.json")}


@pytest.mark.slow
def test_the_tables_hold_every_method_and_are_made_once(ask: Ask, folders: tuple[Path, Path], tmp_path: Path) -> None:
    out, other = tmp_path / "out", ["--pretrain-data", str(folders[1])]
    models = ["--models", "gru4rec", "unisrec", "recformer"]
    tables = ["--only", "overall", "zero-shot", "warm-cold", "pretraining-steps"]
    record = ask(*other, *models, *tables)
    of_table: dict[str, list[str]] = {}
    for line in record["lines"]:
        of_table.setdefault(line["table"], []).append(line["method"])
        assert line["measured"] == 1
    baselines = ["popularity", "item-kNN", "last item, by pretrained text"]
    assert of_table == {
        "overall": [*baselines, "recformer", "unisrec", "gru4rec"],
        "zero-shot": [
            *baselines,
            "recformer, only pretrained",
            "unisrec, only pretrained",
            *(f"{model}, trained" for model in ("recformer", "unisrec", "gru4rec")),
        ],
        "warm-cold": [*baselines, "recformer", "unisrec", "gru4rec"],
        "pretraining-steps": ["recformer"],
    }
    (gru,) = [line for line in record["lines"] if (line["table"], line["method"]) == ("overall", "gru4rec")]
    [measured] = gru["by_seed"]
    assert measured["all items"]["cold targets"]["users"] == 6
    assert measured["all items"]["cold targets"]["NDCG@10"][0] == 0  # it cannot know them
    assert record["failed"] == {}
    claims = [order["claim"] for order in record["orderings"]]
    assert claims == ["Recformer is above every id model", "text is above ids on cold targets"]
    [steps] = [line["steps"] for line in record["lines"] if line["table"] == "pretraining-steps"]
    assert [step for step, _ in steps] == [0, 2, 4]

    text = (out / "report.md").read_text()
    for name in ("overall", "zero_shot", "warm_cold", "pretraining_steps"):
        assert (out / f"{name}.png").read_bytes().startswith(PNG)
        assert f"]({name}.png)" in text
    assert "cold targets (6 users)" in text
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1

    before = made(out)
    assert len(before) == 7  # floors; two, pretrained and trained, one of them in two steps; gru4rec
    again = ask(*other, *models, *tables)
    assert made(out) == before
    assert again == record
    more = ask(*other, *models, "--only", "overall", "--set", "gru4rec:model.settings.hidden=8")
    assert len(made(out).keys() - before.keys()) == 1
    assert before.items() <= made(out).items()
    assert {line["table"] for line in more["lines"]} == {"overall"}


@pytest.mark.slow
def test_other_data_sets_are_aligned_where_there_are_some(ask: Ask, folders: tuple[Path, Path], tmp_path: Path) -> None:
    only = ["--models", "recguru", "--only", "overall"]
    for others in ([str(folders[1])], []):
        before = made(tmp_path / "out")
        assert ask(*only, *(word for other in others for word in ("--pretrain-data", other)))["failed"] == {}
        [new] = [name for name in made(tmp_path / "out").keys() - before.keys() if name.startswith("recguru")]
        run = tmp_path / "out" / "cells" / new
        config = load_config(run / "config.toml")
        assert list(config.adversarial.data) == others
        assert config.stages == ("adversarial", "sequence")
        assert len(json.loads((run / "run.json").read_text())["data_digest"].split(",")) == 1 + len(others)


@pytest.mark.slow
def test_less_data_and_seeds(ask: Ask, tmp_path: Path) -> None:
    record = ask("--models", "gru4rec", "--only", "training-data", "--seeds", "2")
    lines = {(line["method"], line["share"]): line for line in record["lines"]}
    assert sorted(share for method, share in lines if method == "gru4rec") == [0.01, 0.05, 0.1, 0.5, 1.0]
    half = lines["gru4rec", 0.5]
    assert len(half["by_seed"]) == 2
    assert "last item" not in {method for method, _ in lines}
    users = {of["all items"]["all targets"]["users"] for line in record["lines"] for of in line["by_seed"]}
    assert users == {36}  # evaluated alike, whoever trained
    values = [of["all items"]["all targets"]["NDCG@10"][0] for of in half["by_seed"]]
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in text


@pytest.mark.slow
def test_ablations_are_distinguished(ask: Ask, tmp_path: Path) -> None:
    ask("--models", "recformer", "--only", "ablations")
    runs = {path.parent.name[:-13]: path.parent for path in (tmp_path / "out" / "cells").glob("*/config.toml")}
    configs = {name: (path / "config.toml").read_text() for name, path in runs.items()}
    assert len(configs) == 12
    frozen = configs["recformer-one-stage-items-and-words-frozen-seed-1"]
    assert tomllib.loads(frozen)["stages"] == ["stage2"]
    assert "freeze_words = true" in frozen
    joint = "recformer-one-stage-items-trained-through-their-text"
    assert f"{joint}-seed-1" in frozen
    assert f"{joint}-without-pretraining" in configs["recformer-without-pretraining-seed-1"]
    assert 'start_from = ""' in configs[f"{joint}-without-pretraining-seed-1"]
    plain = runs["recformer-without-item-positions-and-token-types-seed-1"] / "checkpoint" / "config.json"
    assert '"token_types": false' in plain.read_text()
    assert '"item_positions": false' in plain.read_text()
    label = "without-item-positions-and-token-types-seed-1"
    assert f"{joint}-{label}" in configs[f"recformer-{label}"]
    assert "pretrained-without-item-positions" in configs[f"{joint}-{label}"]


def test_minutes_count_what_a_model_started_from() -> None:
    pretrained = Experiment("pretrained", "recformer", None)
    trained = Experiment("trained", "recformer", None, start=pretrained)
    baselines = Experiment("floors", "", None)
    seconds: dict[str, dict[str, float]] = {
        "pretrained": {"seconds": 120.0},
        "trained": {"seconds": 60.0},
        "floors": {},
    }
    lines = [TableRow("overall", experiment.name, (experiment,)) for experiment in (pretrained, trained, baselines)]
    results = Results(SimpleNamespace(evaluation=lambda experiment: seconds[experiment.name]), lines)  # type: ignore[arg-type]
    assert [results.minutes(line) for line in lines] == ["2.0", "3.0", "-"]


@pytest.mark.slow
def test_an_estimate_says_what_is_left(
    ask: Ask, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    argv = [
        "suite",
        "paper",
        str(folders[0]),
        "--out",
        str(tmp_path / "out"),
        "--quick",
        "--threads",
        "1",
    ]
    argv += ["--device", "cpu", "--models", "gru4rec", "unisrec", "--only", "overall", "--estimate"]
    argv += [part for change in TINY for part in ("--set", change)]
    main(argv)
    text = capsys.readouterr().out
    assert text.startswith("4 experiments, 0 of them done; to do: at most ")
    assert "overall            4 to do, at most " in text
    assert made(tmp_path / "out") == {}
    with caplog.at_level(logging.INFO):
        ask("--models", "gru4rec", "--only", "overall")
    assert "2 experiments, 0 of them done; to do: at most " in caplog.text
    assert "experiment 2 of 2: gru4rec, seed 1; at most " in caplog.text
    main(argv)
    assert capsys.readouterr().out.startswith("4 experiments, 2 of them done; to do: at most ")


def _die(out: Path, data: Path, at: str, call: int) -> None:
    """Kills its own process just before the `call`-th time that a cell is made, or the state of a training saved."""
    from training.engine.run_directory import RunDirectory

    owner: Any = {"make": ExperimentStore, "save_state": RunDirectory}[at]
    real, calls = getattr(owner, at), 0

    def deadly(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    setattr(owner, at, deadly)
    _suite(out, data).run()


def _suite(out: Path, data: Path) -> Suite:
    return Suite(SuiteConfig(data, out, ["recformer", "gru4rec"], ["overall"], [1], (), None, True, TINY, 1, "cpu"))


@pytest.mark.slow
def test_a_suite_that_is_killed_goes_on(folders: tuple[Path, Path], tmp_path: Path) -> None:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["training.suite.runner", "training.stages.pretraining", "training.stages.two_stage"])
    killed, data = tmp_path / "killed", folders[0]
    before: dict[str, int] = {}
    # In the middle of the second cell, a pretraining; then between that and the next.
    for at, call, finished in (("save_state", 2, 1), ("make", 2, 2)):
        process = server.Process(target=_die, args=(killed, data, at, call))
        process.start()
        process.join(240)
        assert process.exitcode == -signal.SIGKILL
        assert before.items() <= made(killed).items()
        before = made(killed)
        assert len(before) == finished
        left = list((killed / "cells").glob("recformer-pretrained-*/last/state.pt"))
        assert len(left) == (at == "save_state")  # what the next process goes on from
    suite = _suite(killed, data)
    assert [experiment.name for experiment in suite.missing()] == [
        "recformer one stage, items trained through their text, seed 1",
        "recformer, seed 1",
        "gru4rec, seed 1",
    ]
    assert suite.run() == {}
    assert before.items() <= made(killed).items()
    _suite(tmp_path / "unbroken", data).run()
    reports = [json.loads((tmp_path / out / "report.json").read_text()) for out in ("killed", "unbroken")]
    for report in reports:
        for line in report["lines"]:
            del line["seconds"]
    assert reports[0] == reports[1]
    [log] = (killed / "cells").glob("recformer-pretrained-*/metrics.jsonl")
    [whole] = (tmp_path / "unbroken" / "cells").glob("recformer-pretrained-*/metrics.jsonl")
    steps = [[json.loads(line).get("step") for line in path.read_text().splitlines()] for path in (log, whole)]
    assert steps[0] == steps[1]


@pytest.mark.slow
def test_a_training_begun_with_other_threads_is_made_anew(
    folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are not in a cell's name, and a run goes on with the same ones only."""
    asked = SuiteConfig(folders[0], tmp_path / "out", ["gru4rec"], ["overall"], [1], (), None, True, TINY, 1, "cpu")
    suite = Suite(asked)
    assert suite.run() == {}
    [experiment] = [experiment for experiment in suite.experiments if experiment.config]
    path = suite.store.path(experiment)
    (path / "evaluation.json").unlink()
    about = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(about | {"state": "running"}))
    config = (path / "config.toml").read_text()
    (path / "config.toml").write_text(config.replace("threads = 1", "threads = 2"))
    again = Suite(asked)
    assert again.missing() == [experiment]
    assert again.run() == {}
    assert (path / "config.toml").read_text() == config
    assert json.loads((path / "run.json").read_text())["checkpoint_digest"] == about["checkpoint_digest"]


def test_other_weights_of_a_text_encoder_make_other_cells(world: Dataset, tmp_path: Path) -> None:
    names = set()
    for weights in (b"1234", b"1235"):
        (tmp_path / "encoder").mkdir(exist_ok=True)
        (tmp_path / "encoder" / "model.safetensors").write_bytes(weights)
        recipes = Recipes.of(world, True, True, 1, "cpu", [])
        [*_, experiment] = experiments_of(Plan(recipes, ["unisrec"], ["overall"], [1], False, True).rows())
        names.add(
            ExperimentStore(tmp_path / "out", world, tmp_path, text_encoder=tmp_path / "encoder").path(experiment)
        )
    assert len(names) == 2


def test_a_cell_is_named_by_what_decides_it(world: Dataset, tmp_path: Path) -> None:
    store = ExperimentStore(tmp_path / "out", world, tmp_path)

    def path_of(*changes: str, threads: int = 1) -> Path:
        recipes = Recipes.of(world, True, False, threads, "cpu", list(changes))
        [experiment] = [
            experiment
            for experiment in experiments_of(Plan(recipes, ["gru4rec"], ["overall"], [1], False, False).rows())
            if experiment.config
        ]
        return store.path(experiment)

    assert path_of() == path_of(threads=2) == path_of("joint.negatives=7") == path_of("save_minutes=1.0")
    others = [path_of("sequence.batch_size=7"), path_of("model.settings.hidden=8"), path_of("validation.users=9")]
    assert len({path_of(), *others}) == 4


def test_an_estimate_is_the_sum_of_the_time_limits(world: Dataset) -> None:
    changes = ["gru4rec:optimizer.max_minutes=0.5"]
    recipes = Recipes.of(world, True, False, 1, "cpu", changes)
    assert time_limit(recipes.training("gru4rec", 1)) == 30
    two = recipes.training("recformer", 1, 1.0, "stage1.optimizer.max_minutes=1", "stage2.optimizer.max_minutes=2")
    assert time_limit(two) == 180
    assert time_limit(recipes.training("recformer", 1, 1.0, "stage2.optimizer.max_minutes=0")) is None


def test_what_stands_behind_a_mean() -> None:
    assert str(Value(0.5, 0.1, 0.2, 0.9, seeds=3, wanted=3)) == "0.5000 ± 0.1000"
    assert str(Value(0.5, 0.1, 0.2, 0.9, seeds=2, wanted=3)) == "0.5000 ± 0.1000 (2 of 3 seeds)"
    assert str(Value(0.5, 0.0, 0.2, 0.9, seeds=1, wanted=1)) == "0.5000 [0.2000, 0.9000]"
    assert Value(0.5, 0.1, 0.2, 0.9, seeds=3, wanted=3).bars == (0.1, 0.1)
    assert Value(0.5, 0.0, 0.2, 0.9, seeds=1, wanted=1).bars == pytest.approx((0.3, 0.4))


@pytest.mark.slow
def test_a_cell_that_fails_stops_no_other(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = ["--models", "gru4rec", "sasrec", "--only", "overall", "--set", "sasrec:model.settings.heads=3"]
    with pytest.raises(SeqrecError, match=r"1 of 3 experiments failed: sasrec, seed 1; see report.json"):
        ask(*broken)
    record = json.loads(capsys.readouterr().out)
    assert list(record["failed"]) == ["sasrec, seed 1"]
    assert {line["method"]: line["measured"] for line in record["lines"]}["gru4rec"] == 1
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Failed: sasrec, seed 1: " in text
    assert "| sasrec | - | - |" in text


def test_what_cannot_be_made_is_refused(ask: Ask, folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is for 'gru'; there are recformer"):
        ask("--set", "gru:seed=2")
    with pytest.raises(InputError, match="need other models, or --pretrain-data"):
        ask("--models", "gru4rec", "--only", "zero-shot")
    with pytest.raises(InputError, match=r"--pretrain-data: .* is the data set to evaluate on"):
        ask("--pretrain-data", str(folders[0]))
    with pytest.raises(InputError, match=r"is not a folder with items\.jsonl"):
        suite(["paper", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")])


@pytest.mark.slow
def test_every_model_has_a_recipe(world: Dataset) -> None:
    for quick in (True, False):
        for text_encoder in (True, False):
            recipes = Recipes.of(world, quick, text_encoder, 1, "cpu", [])
            lines = Plan(recipes, MODELS, TABLES, [1, 2], pretrained=True, text_encoder=text_encoder).rows()
            assert {line.table for line in lines} == set(TABLES)
            experiments = experiments_of(lines)
            assert {experiment.model for experiment in experiments if experiment.config} == set(MODELS)
            for experiment in experiments:
                if experiment.start is not None:
                    names = [one.name for one in experiments]
                    assert names.index(experiment.start.name) < names.index(experiment.name)
            [tuned] = [experiment for experiment in experiments if experiment.name == "recformer, seed 1"]
            assert tuned.start is not None
            assert tuned.start.config is not None
            assert list(tuned.start.config.stages) == (["joint"] if quick else ["pretrain"])
            [small] = [experiment for experiment in experiments if experiment.name == "sasrec, 1% of the users, seed 1"]
            [whole] = [experiment for experiment in experiments if experiment.name == "sasrec, seed 1"]
            assert small.config is not None
            assert whole.config is not None
            times = small.config.optimizer.max_epochs / whole.config.optimizer.max_epochs
            assert small.config.optimizer_of("sequence").max_epochs == 10 * whole.config.optimizer.max_epochs
            assert times == 1


def test_a_part_trains_and_all_are_evaluated(world: Dataset) -> None:
    parts = [PartlyTrained.of(world, share) for share in (0.1, 0.5, 1.0)]
    trained = [set(np.flatnonzero(part.cuts.train_end > 0)) for part in parts]
    assert [len(users) for users in trained] == [6, 30, 60]
    assert trained[0] < trained[1] < trained[2]
    for part in parts:
        for split in ("valid", "test"):
            assert [list(rows) for rows in part.cases(split).histories] == [
                list(rows) for rows in world.cases(split).histories
            ]
        assert popularity(part).sum() == 10 * part.trains.sum() if part.trains is not None else False
    assert len({part.digest for part in parts} | {world.digest}) == 4
    assert (popularity(parts[2]) == popularity(world)).all()


def test_a_sample_of_users_is_written_and_read(world: Dataset, tmp_path: Path) -> None:
    sampled = sample_users(world, 7)
    assert (sampled.users, len(sampled.items), len(sampled.events)) == (7, 30, 84)
    for user, user_id in enumerate(sampled.user_ids):
        assert list(sampled.sequence(user)) == list(world.sequence(list(world.user_ids).index(user_id)))
    write_folder(sampled, tmp_path / "folder")
    assert read_folder(tmp_path / "folder", None).digest == sampled.digest
    small = sample_users(world, 1, whole_catalogue=False)
    assert 0 < len(small.items) < 30
    assert {item.item_id for item in small.items} == {small.items[row].item_id for row in small.events}
    assert sample_users(world, 60) is world
