"""The TypeScript client of docs/client.md: types from the OpenAPI document, compiled where node is present."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECK = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", "--allowImportingTsExtensions"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and the types, made by the commands of the page."""
    root = Path(__file__).parents[3]
    if shutil.which("npm") is None or shutil.which("npx") is None:
        pytest.skip("node is not installed")
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    commands = re.search(r"```sh\n(npm install .*?)```", (root / "docs" / "client.md").read_text(), re.DOTALL)
    assert commands
    install, generate = commands[1].strip().splitlines()
    installed = subprocess.run(install.split(), cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm cannot install the packages: {installed.stderr[-200:]}")
    shutil.copytree(root / "docs", folder / "docs", ignore=lambda _, names: {n for n in names if n != "openapi.json"})
    subprocess.run(generate.split(), cwd=folder, check=True, capture_output=True)
    return folder


def compiled(project: Path, source: str) -> subprocess.CompletedProcess[str]:
    (project / "client.ts").write_text(source)
    return subprocess.run(["npx", "tsc", *CHECK, "client.ts"], cwd=project, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_example_compiles_and_a_wrong_field_does_not(project: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "client.md").read_text()
    example = re.search(r"```ts\n(.*?)```", page, re.DOTALL)
    assert example
    source = f'const key = "seqrec_";\n{example[1]}console.log(data?.items[0]?.item_id, error);\n'
    done = compiled(project, source)
    assert done.returncode == 0, done.stdout
    done = compiled(project, source.replace("history:", "histroy:"))
    assert done.returncode != 0
    assert "histroy" in done.stdout
