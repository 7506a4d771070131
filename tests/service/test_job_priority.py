"""A job's process has a low priority, also among sessions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs import _lower_priority


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process
        process.kill()


def test_low_within_its_session_and_among_sessions(process: subprocess.Popen[bytes]) -> None:
    _lower_priority(process.pid)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 10
    autogroup = Path(f"/proc/{process.pid}/autogroup")
    if not autogroup.exists():
        pytest.skip("this kernel has no autogroups")
    assert autogroup.read_text(encoding="ascii").split()[1:] == ["nice", "10"]


def test_a_process_that_has_ended_is_no_error(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    _lower_priority(process.pid)
