"""What all commands have in common: one-line errors, examples in each help that are valid, --json, completion."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cli import BENCHMARKS, main_of
from seqrec import cli
from seqrec.completion import parser_of
from seqrec.runtime.arguments import Collected, Parser, collecting, did_you_mean, subcommands
from seqrec.runtime.examples import EXAMPLES

FACTLESS = {"init", "up", "demo", "serve", "completion", "bench"}
"""They print files that they write, a script, or nothing but progress. Benchmarks write JSON to a file."""


def parsers() -> Iterator[Parser]:
    """Those of all commands, and those of their subcommands."""
    for command in cli.COMMANDS:
        parser = parser_of(command)
        assert parser is not None
        yield parser
        for name, below in subcommands(parser).items():
            if below.prog == "seqrec import recformer":  # its options are in a module that loads torch
                whole = parser_of("import", "recformer")
                assert whole is not None
                yield subcommands(whole)[name]
            else:
                yield below


ALL = {parser.prog: parser for parser in parsers()}


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def test_examples_are_of_commands_that_there_are() -> None:
    assert set(EXAMPLES) == set(ALL)


@pytest.mark.parametrize("prog", ALL)
def test_every_help_ends_with_examples(prog: str) -> None:
    text = ALL[prog].format_help()
    assert "\nexample" in text
    assert text.rstrip().endswith(EXAMPLES[prog][-1])


@pytest.mark.parametrize("prog", ALL)
def test_every_example_can_be_parsed(prog: str) -> None:
    for example in EXAMPLES[prog]:
        words = shlex.split(example.partition(" > ")[0].rpartition(" | ")[2])
        words = words[next(place for place, word in enumerate(words) if word == "seqrec") + 1 :]
        command = f"seqrec {words[0]}"
        parser, rest = ALL[command], words[1:]
        if words[:2] == ["import", "recformer"]:
            parser, rest = ALL["seqrec import recformer"], words[2:]
        parser.parse_args(rest[:1] if command == "seqrec bench" else rest)
        assert example.find(prog) >= 0


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_s_help_has_its_name(name: str) -> None:
    with collecting(), pytest.raises(Collected) as found:
        main_of(name)([])
    assert found.value.parser.prog == f"seqrec bench {name}"


@pytest.mark.parametrize("prog", [prog for prog in ALL if prog.split()[1] not in FACTLESS])
def test_every_command_that_prints_facts_has_json(prog: str) -> None:
    parser = ALL[prog]
    if not subcommands(parser):
        assert "--json" in parser.format_usage()


def test_errors_are_one_line_with_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        error_of(capsys, "trian") == "seqrec: no command 'trian', did you mean 'train'?; `seqrec --help` lists them\n"
    )
    meant = "seqrec index build: no option '--itmes', did you mean '--items'?; `seqrec index build --help` shows"
    assert error_of(capsys, "index", "build", "--itmes", "x").startswith(meant)
    assert error_of(capsys, "index", "build", "--checkpoint=c", "--itmes=x").startswith(meant)
    assert "did you mean 'build'?" in error_of(capsys, "index", "bild")
    assert "did you mean 'encode'?" in error_of(capsys, "bench", "encod")
    assert "no argument 'more'" in error_of(capsys, "reindex", "more")
    assert "arguments are required: NAME" in error_of(capsys, "keys", "revoke")
    assert "did you mean" not in error_of(capsys, "reindex", "--colour")


def test_did_you_mean() -> None:
    assert did_you_mean("catalog", list(cli.COMMANDS)) == ", did you mean 'catalogue'?"
    assert did_you_mean("qqq", list(cli.COMMANDS)) == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_has_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    cli.main(["completion", shell])
    script = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert command in script
    assert "rollback" in script
    assert "cold-items" in script
    assert "on-error" in script


def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    cli.main(["completion", "bash"])
    script = tmp_path / "seqrec.bash"
    script.write_text(
        capsys.readouterr().out + "\ncomplete_words() {\n"
        '  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
        "  $(complete -p seqrec | sed 's/.*-F \\([^ ]*\\).*/\\1/') seqrec \"${COMP_WORDS[COMP_CWORD]}\"\n"
        '  echo "${COMPREPLY[@]}"\n}\n'
        "complete_words seqrec in; complete_words seqrec index b; complete_words seqrec index build --it\n"
        "complete_words seqrec train --on-error s\n",
        encoding="utf-8",
    )
    done = subprocess.run([bash, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["init index", "build", "--items", "skip"]


def test_without_shtab_the_error_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["completion", "bash"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "seqrec completion: shtab is not installed: pip install shtab\n"


def test_serve_takes_host_and_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import service.cli as serve_cli

    seen = []
    monkeypatch.setattr(serve_cli, "_check_certificate", lambda settings: seen.append((settings.host, settings.port)))
    monkeypatch.setattr(serve_cli, "listen", lambda host, port, backlog: seen.append((host, port)) or _stop())
    monkeypatch.setenv("SEQREC_PORT", "8001")
    monkeypatch.setenv("SEQREC_HOST", "127.0.0.1")
    with pytest.raises(_Stopped):
        serve_cli.serve(["--host", "::1", "--port", "0"])
    assert seen == [("::1", 0), ("::1", 0)]


class _Stopped(Exception):
    pass


def _stop() -> None:
    raise _Stopped


def test_status_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        'format = 1\n[items]\npath = "i.csv"\ncolumns = {id = "id"}\n[events]\npath = "e.csv"\nuser = "u"\nitem = "i"\n'
    )
    (tmp_path / "shop.toml").write_text(text, encoding="utf-8")
    (tmp_path / "i.csv").write_text("id\n1\n")
    (tmp_path / "e.csv").write_text("u,i\n1,1\n")
    cli.main(["status", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {stage["state"] for stage in found["stages"]} == {"never run"}
    assert (found["published"], found["served"]) == (None, None)
    cli.main(["status"])
    assert "nothing is published yet" in capsys.readouterr().out


def test_all_parsers_are_of_this_class(root: Path) -> None:
    for package in ("seqrec", "training", "index", "service", "retraining", "benchmarks"):
        for path in (root / package).rglob("*.py"):
            assert "argparse.ArgumentParser(" not in path.read_text(encoding="utf-8"), path
