"""The program as processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Of a child process: no settings but these, one thread (the tests share two cores)."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEQREC_")}
    named = {f"SEQREC_{name.upper()}": value for name, value in settings.items()}
    return inherited | {"SEQREC_HOME": str(home), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | named


def seqrec(home: Path, *argv: str) -> str:
    """Run the program; its standard output."""
    command = [sys.executable, "-m", "seqrec", *argv]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Server:
    """`seqrec serve` as a process of its own, on a free port."""

    home: Path
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)
    client: httpx.Client = field(init=False)

    def start(self) -> Server:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "seqrec", "serve"],
                env=environment(self.home, port="0", deadline="30"),
                stdout=log,
                stderr=log,
            )
        url = self._wait(lambda: self._listening())
        self.client = httpx.Client(base_url=url, timeout=60)
        self._wait(lambda: "ready" if self.client.get("/readyz").status_code == 200 else "")
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL, whatever it is doing; nothing if it has ended."""
        if hasattr(self, "client"):
            self.client.close()
        self.process.kill()
        self.process.wait()

    def _listening(self) -> str:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        found = [line.partition("listening on ")[2].split()[0] for line in lines if "listening on " in line]
        return found[-1] if found else ""

    def _wait(self, what: Callable[[], str], seconds: float = 60) -> str:
        end = time.monotonic() + seconds
        while not (value := what()):
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
            assert time.monotonic() < end, self.log.read_text(encoding="utf-8")
            time.sleep(0.05)
        return value
