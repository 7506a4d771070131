from __future__ import annotations

import importlib
from pathlib import Path
from pkgutil import resolve_name

import pytest

from benchmarks import cli
from seqrec.errors import InputError


def test_help_lists_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.bench(["--help"])
    assert exited.value.code == 0
    out = capsys.readouterr().out
    for name, (_, text) in cli.BENCHMARKS.items():
        assert f"  {name} " in out
        assert text in out


@pytest.mark.parametrize("argv", [[], ["fastness"], ["--fast"]])
def test_what_is_no_benchmark_is_wrong_usage(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.bench(argv)
    assert exited.value.code == 2


@pytest.mark.parametrize("name", cli.BENCHMARKS)
def test_every_benchmark_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.bench([name, "--help"])
    assert exited.value.code == 0
    assert f"usage: seqrec bench {name}" in capsys.readouterr().out


@pytest.mark.parametrize("reference", [reference for reference, _ in cli.BENCHMARKS.values()])
def test_every_benchmark_runs_as_a_module(reference: str, root: Path) -> None:
    module = root / "benchmarks" / f"{reference.replace('.', '/')}.py"
    assert module.read_text(encoding="utf-8").endswith('if __name__ == "__main__":\n    main()\n')


def test_every_benchmark_is_in_the_page(root: Path) -> None:
    page = (root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in cli.BENCHMARKS if f"`seqrec bench {name}`" not in page] == []


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: list[str]) -> None:
        importlib.import_module("httq")

    monkeypatch.setattr(cli, "main_of", lambda name: main)
    with pytest.raises(InputError, match="serve: it needs httq, which is not installed"):
        cli.bench(["serve"])


def test_a_missing_module_of_ours_is_no_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main_of", lambda name: resolve_name("benchmarks.nothing:main"))
    with pytest.raises(ModuleNotFoundError):
        cli.bench(["serve"])
