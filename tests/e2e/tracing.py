"""strace around a process: what it wrote and synced, in which order."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

_LINE = re.compile(r"(?:\[pid\s+\d+\] |\d+\s+)?(\w+)\((.*)")
_FILE = re.compile(r"^\d+<([^>]*)>|^(?:AT_FDCWD<[^>]*>|AT_FDCWD)?,? ?\"([^\"]*)\"")


@dataclass(frozen=True)
class Call:
    """One system call: its name, the file of its first argument, and all it was given."""

    name: str
    path: str
    arguments: str


def needs_strace() -> None:
    """Skip the test where processes cannot be traced."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace may not trace here: {probe.stderr.strip()[-200:]}")


class Trace:
    """Attached to a process and all its threads from `start` to `stop`."""

    def __init__(self, process: int, output: Path, calls: str, *options: str) -> None:
        self._output = output
        command = ["strace", "-f", "-yy", "-s", "96", "-e", f"trace={calls}", *options, "-o", str(output)]
        self._strace = subprocess.Popen(
            [*command, "-p", str(process)], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._strace.stderr is not None
        said = self._strace.stderr.readline()
        if "attached" not in said:
            self._strace.wait()
            pytest.skip(f"strace may not attach here: {said.strip()}")

    def stop(self) -> list[Call]:
        """Let go of the process; what it called."""
        time.sleep(0.05)
        if self._strace.poll() is None:
            self._strace.terminate()
        assert self._strace.stderr is not None
        self._strace.stderr.read()
        self._strace.wait()
        self._strace.stderr.close()
        return read(self._output)


def read(output: Path) -> list[Call]:
    """The calls of a trace written with -yy, in the order in which they ended or were begun."""
    calls = []
    for line in output.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _LINE.match(line)
        if found:
            file = _FILE.match(found[2])
            calls.append(Call(found[1], (file[1] or file[2] or "") if file else "", found[2]))
    return calls
