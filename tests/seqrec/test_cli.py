from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from seqrec import __version__, cli
from seqrec.errors import InputError, SeqrecError


def exit_code(*argv: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return caught.value.code


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def command(name: str, argv: list[str]) -> None:
        raise error

    monkeypatch.setattr(cli, "run", command)


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_lists_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*argv) == 0
    out = capsys.readouterr().out
    for name, (_, text) in cli.COMMANDS.items():
        assert name in out
        assert text in out


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code() == 2
    assert "usage: seqrec COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("trian") == 2
    assert "seqrec: no command 'trian'" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"seqrec {__version__}\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(command, "--help") == 0
    assert f"seqrec {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_refuses_an_option_it_does_not_know(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(command, "--no-such-option") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"seqrec {command}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (SeqrecError("the desk is missing"), 1, "seqrec train: the desk is missing"),
        (InputError("not a number", "k"), 1, "seqrec train: k: not a number"),
        (KeyboardInterrupt(), 130, "seqrec train: interrupted; nothing half-written is left"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "var/x"),
            1,
            "seqrec train: No space left on device: var/x; nothing half-written is left",
        ),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "var"), 1, "seqrec train: Permission denied: var"),
        (OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "a/b"), 1, "seqrec train: Not a directory: a/b"),
        (OSError(errno.EISDIR, os.strerror(errno.EISDIR), "a"), 1, "seqrec train: Is a directory: a"),
        (OSError(errno.EEXIST, os.strerror(errno.EEXIST), "a"), 1, "seqrec train: File exists: a"),
        (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "a"), 1, "seqrec train: File name too long: a"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), 1, "seqrec train: Read-only file system; nothing"),
    ],
)
def test_what_a_failure_says(
    error: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising(monkeypatch, error)
    assert exit_code("train") == code
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])
    raising(monkeypatch, OSError(errno.EBADF, "bad descriptor"))
    with pytest.raises(OSError, match="bad descriptor"):
        cli.main(["train"])


@pytest.mark.parametrize("command", ["train", "pretrain", "runs", "evaluate", "suite"])
def test_training_without_its_libraries_names_the_extra(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name in ("accelerate", "tomli_w") else object())
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(
        f"seqrec {command}: the training libraries are not installed (accelerate, tomli_w): "
        "pip install 'seqrec[train]', or in a clone: "
    )
    assert error.count("\n") == 1


def test_a_demo_without_its_libraries_names_one_command_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name in ("pyarrow", "accelerate") else object())
    assert exit_code("demo") == 1
    assert capsys.readouterr().err == (
        "seqrec demo: pyarrow, accelerate: not installed; pip install 'seqrec[cpu,shop,train]'\n"
    )


def test_the_libraries_that_training_needs_are_its_extra(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {name.replace("-", "_") for name in project["optional-dependencies"]["train"]}
    assert extra == set(cli.TRAINING_LIBRARIES)
    assert not extra & {name.replace("-", "_") for name in project["dependencies"]}


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys\nfrom seqrec.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_in_one_line(number: signal.Signals) -> None:
    """A real signal to a real process: Ctrl-C, or what a process manager sends."""
    code = (
        "import time\nfrom seqrec import cli\n"
        "cli.run = lambda command, argv: (print('at work', flush=True), time.sleep(60))\n"
        "cli.main(['train'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "\nseqrec train: interrupted; nothing half-written is left\n"


@pytest.mark.parametrize("lines", [1, 100_000], ids=["buffered", "more than a pipe"])
def test_a_reader_that_is_gone_ends_a_command_without_a_traceback(lines: int) -> None:
    """As `seqrec completion bash | head -3` does."""
    code = (
        "import sys\nfrom seqrec import cli\n"
        f"cli.run = lambda command, argv: (sys.stdin.read(), [print('a line') for _ in range({lines})])\n"
        "cli.main(['train'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
