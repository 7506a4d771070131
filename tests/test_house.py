"""The house keeps its order: imports, what is tracked, pins, the container files, and pages that say the truth."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seqrec import cli

PACKAGES = ("seqrec", "training", "index", "service", "retraining", "benchmarks")


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tracked(root: Path) -> list[str]:
    """Paths that git tracks."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name]


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[str, str]:
    """README.md and every page of docs/, by name."""
    paths = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths}


# Imports


@pytest.mark.slow
def test_imports_run_one_way() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [lint, "--no-cache"], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_up_imports_none_of_the_commands_it_calls(root: Path) -> None:
    tree = ast.parse((root / "seqrec" / "shop" / "up.py").read_text(encoding="utf-8"))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {name.partition(".")[0] for name in imported} & {"training", "index", "service"}


@pytest.mark.slow
def test_serving_and_indexing_import_no_training_library(root: Path) -> None:
    """Every module of what serves, in an installation without the extra `train` and without the trainer."""
    code = (
        "import pkgutil, sys\n"
        f"sys.modules |= dict.fromkeys({(*cli.TRAINING_LIBRARIES, 'training')})\n"
        "import seqrec, index, service\n"
        "for package in (seqrec, index, service):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            __import__(module.name)\n"
        "print(len([name for name in sys.modules if name.startswith('service.')]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


# The package


def test_every_folder_with_modules_is_a_package(root: Path, project: dict[str, Any]) -> None:
    assert set(project["tool"]["setuptools"]["packages"]["find"]["include"]) == {f"{name}*" for name in PACKAGES}
    folders = {path.parent for package in PACKAGES for path in (root / package).rglob("*.py")}
    for folder in folders:
        assert (folder / "__init__.py").is_file(), f"{folder} has no __init__.py, so it is not installed"


def test_no_folder_holds_more_than_13_modules(root: Path) -> None:
    """A folder of more is a pile; `seqrec/models` has one file for each model, however many there are."""
    for package in PACKAGES:
        for init in (root / package).rglob("__init__.py"):
            modules = [path.name for path in init.parent.glob("*.py") if path.name != "__init__.py"]
            if init.parent != root / "seqrec" / "models":
                assert len(modules) <= 13, f"{init.parent}: {sorted(modules)}"


def test_files_stay_short(root: Path) -> None:
    """A file of more than 450 lines says more than one thing."""
    long = {
        str(path.relative_to(root)): lines
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert long == {}


def test_every_requirement_is_pinned(root: Path, project: dict[str, Any]) -> None:
    text = (root / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {_normal(line.partition("==")[0]) for line in lines}
    assert len(pinned) == len(lines)
    wanted = list(project["project"]["dependencies"])
    wanted += [name for extra in project["project"]["optional-dependencies"].values() for name in extra]
    assert {_normal(re.split(r"[\[<>=]", name)[0]) for name in wanted} <= pinned


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_ci_runs_what_a_developer_runs(root: Path) -> None:
    script = root / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = script.read_text(encoding="utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"


# What is in the repository


def test_no_state_is_tracked(tracked: list[str]) -> None:
    state = re.compile(
        r"^(build|dist)/|(^|/)(var|\.venv|__pycache__|\.\w+_cache|[^/]*\.egg-info)/|\.(pyc|sqlite3|sqlite3-wal|faiss)$"
    )
    assert [name for name in tracked if state.search(name)] == []


def test_no_page_or_code_holds_a_path_of_somebody_s_machine(root: Path, tracked: list[str]) -> None:
    personal = re.compile(r"(?<![\w.])/(home|Users|root|work|mnt)/\w")
    text = (".py", ".md", ".toml", ".yml", ".txt", ".html", ".css", ".js", "Makefile", "Dockerfile", ".ci/run")
    found = [
        name for name in tracked if name.endswith(text) and personal.search((root / name).read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_bundled_data_says_where_it_comes_from(root: Path) -> None:
    for folder in (root / "data").iterdir():
        source = (folder / "SOURCE.md").read_text(encoding="utf-8")
        assert "CC BY 4.0" in source


# Container


def test_the_dockerfile_copies_what_is_there_and_ends_as_a_plain_user(root: Path) -> None:
    text = (root / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)
    assert {"cpu", "cuda"} <= set(stages)
    kept = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for word, rest in steps:
        if word == "COPY" and not rest.startswith("--from"):
            sources = rest.split()[:-1]
            assert set(sources) <= kept, "hidden by .dockerignore"
            assert all((root / source).exists() for source in sources)
    packages = {rest.split()[0] for word, rest in steps if word == "COPY"} & set(PACKAGES)
    assert packages == set(PACKAGES)
    (user,) = [rest for word, rest in steps if word == "USER"]
    assert user not in ("root", "0")
    (check,) = [rest for word, rest in steps if word == "HEALTHCHECK"]
    program, _, code = json.loads(check[check.index("[") :])
    assert program == "python"
    assert "/healthz" in code
    compile(code, "HEALTHCHECK", "exec")


# Pages


def test_every_command_is_in_the_pages(pages: dict[str, str]) -> None:
    for command in cli.COMMANDS:
        assert any(f"seqrec {command}" in page for page in pages.values()), command


def test_every_command_the_pages_show_is_one(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", page, re.DOTALL):
            for command in re.findall(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*seqrec ([a-z]+)", block, re.MULTILINE):
                assert command in cli.COMMANDS, f"{name}: seqrec {command}"


def test_every_make_target_the_pages_show_is_one(root: Path, pages: dict[str, str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name, page in pages.items():
        for target in re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z]+)", page):
            assert target in targets, f"{name}: make {target}"


def test_links_between_pages_lead_somewhere(root: Path, pages: dict[str, str]) -> None:
    for name, page in pages.items():
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page):
            if "://" not in link:
                assert ((root / name).parent / link).exists(), f"{name}: {link}"


def test_every_setting_of_the_service_is_documented(pages: dict[str, str]) -> None:
    from service.settings import Settings

    page = pages["docs/configuration.md"]
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `SEQREC_{name.upper()}` \| (\S*) \|", page, re.MULTILINE)
        assert row, f"SEQREC_{name.upper()} is not in docs/configuration.md"
        assert row[1] == ("" if field.get_default() is None else f"`{field.get_default()}`")
    documented = set(re.findall(r"^\| `SEQREC_([A-Z_]+)`", page, re.MULTILINE))
    assert documented == {name.upper() for name in Settings.model_fields}


def test_the_changelog_has_this_version(root: Path, project: dict[str, Any]) -> None:
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(project['project']['version'])}\b", changelog, re.MULTILINE)
