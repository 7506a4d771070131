"""The example of docs/adding-a-model.md is a model that needs no other file than those on the page.

The files of the page are written into a copy of the repository, where the model is tested, trained and kept apart from
the other models.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seqrec.errors import InputError
from tests.contracts.id_model_contract import IdModelContract
from tests.training.conftest import write_world
from training.config.load import load_config
from training.config.schema import RunConfig

PAGE = Path("docs") / "adding-a-model.md"
PYTEST = re.compile(r"^\.venv/bin/python -m pytest (.+)$", re.MULTILINE)
BLOCK = re.compile(r'```\w+ title="([\w/.]+)"\n(.*?)```', re.DOTALL)
TABLE = "seqrec/models/__init__.py"
FOLDERS = ("seqrec", "training", "index", "service", "retraining", "benchmarks", "tests")


@pytest.fixture(scope="module")
def blocks(root: Path) -> dict[str, str]:
    """The files of the page, by path."""
    return dict(BLOCK.findall((root / PAGE).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def copy(root: Path, blocks: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the files of the page."""
    copy = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "golden", "compat")
    for folder in FOLDERS:
        shutil.copytree(root / folder, copy / folder, ignore=ignored)
    shutil.copy(root / "pyproject.toml", copy)
    (copy / "data").symlink_to(root / "data")
    for path, text in blocks.items():
        if path == TABLE:
            table = (copy / path).read_text(encoding="utf-8")
            text = table.replace("MODELS = {\n", "MODELS = {\n" + text, 1)
            assert text != table
        (copy / path).write_text(text, encoding="utf-8")
    return copy


def run(copy: Path, *command: str) -> str:
    """What a Python program prints that runs in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def differing(left: Path, right: Path) -> set[str]:
    """Files that are only in `right`, or differ, by their path in it."""
    compared = filecmp.dircmp(left, right, ignore=["__pycache__"])
    found = {str(right / name) for name in [*compared.right_only, *compared.diff_files]}
    for name in compared.common_dirs:
        found |= differing(left / name, right / name)
    return found


def test_a_model_is_four_files(root: Path, copy: Path, blocks: dict[str, str]) -> None:
    """Itself, its line in the table, its preset and its test."""
    changed = {path for folder in FOLDERS for path in differing(root / folder, copy / folder)}
    assert {str(Path(path).relative_to(copy)) for path in changed} == blocks.keys()
    assert len(blocks) == 4
    table, before = ((folder / TABLE).read_text(encoding="utf-8").splitlines() for folder in (copy, root))
    assert len(table) == len(before) + 1


@pytest.fixture(scope="module")
def commands(root: Path) -> list[list[str]]:
    """What the page gives to pytest: the contract's test, and the one that serves the model."""
    return [command.split() for command in PYTEST.findall((root / PAGE).read_text(encoding="utf-8"))]


@pytest.mark.slow
def test_it_meets_the_contract(copy: Path, commands: list[list[str]], blocks: dict[str, str]) -> None:
    contract, _ = commands
    assert contract == [path for path in blocks if path.startswith("tests/")]
    out = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *contract)
    assert re.search(r"^\d\d passed", out, re.MULTILINE), out


@pytest.mark.slow
def test_it_is_served(copy: Path, commands: list[list[str]]) -> None:
    _, served = commands
    out = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *served)
    assert re.search(r"^1 passed", out, re.MULTILINE), out


def test_the_page_names_what_the_contract_lets_a_test_set(root: Path) -> None:
    """With their defaults."""
    text = (root / PAGE).read_text(encoding="utf-8")
    contract = IdModelContract
    for row in (
        f"`epochs`, `learning_rate` | {contract.epochs}, {contract.learning_rate} |",
        f"`reads_order` | {contract.reads_order} |",
        f"`longest` | {contract.longest} |",
    ):
        assert row in text
    stated = {name for owner in contract.__mro__ for name in vars(owner).get("__annotations__", {})}
    assert {name for name in stated - {"name"} if f"`{name}`" not in text} == set()


def test_three_keys_of_a_preset_are_required(tmp_path: Path) -> None:
    """Without a stage or a name the run is another one, without a limit there is none."""
    required = ('stages = ["sequence"]', '[model]\nname = "markov"', "[optimizer]\nmax_epochs = 20")
    path = tmp_path / "preset.toml"

    def config_without(left_out: str) -> RunConfig:
        path.write_text("\n".join(part for part in required if part != left_out), encoding="utf-8")
        return load_config(path)

    config = config_without("")
    assert (config.stages, config.model.name, config.optimizer.max_epochs) == (("sequence",), "markov", 20)
    assert config_without(required[0]).stages == ("joint",)
    assert config_without(required[1]).model.name != "markov"
    with pytest.raises(InputError, match="set at least one of max_epochs, max_steps, max_minutes"):
        config_without(required[2])


@pytest.mark.slow
def test_it_is_trained_by_its_preset(copy: Path, tmp_path: Path) -> None:
    items, interactions = write_world(tmp_path)
    out = tmp_path / "run"
    data = ["--items", str(items), "--interactions", str(interactions)]
    run(copy, "-m", "seqrec", "train", "--preset", "markov", *data, "--out", str(out), "--set", "device=cpu")
    answer = run(
        copy, "-c", f"import seqrec; print(seqrec.load_model({str(out / 'checkpoint')!r}, 'cpu').checkpoint.model_name)"
    )
    assert answer.strip() == "markov"


@pytest.mark.slow
def test_the_tests_of_the_repository_accept_it(copy: Path) -> None:
    """Those that go over all models or presets."""
    tests = ["tests/seqrec/models/test_independence.py", "tests/training/config"]
    run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests)


def test_the_page_names_what_is_there(root: Path, blocks: dict[str, str]) -> None:
    text = (root / PAGE).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:seqrec|training|tests)/[\w/.-]+\.\w+)`", text):
        assert (root / path).is_file() or path in blocks, path
