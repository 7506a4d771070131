"""`seqrec serve` as a child process on a free port, to be started, queried and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from seqrec.checkpoint import save_checkpoint
from seqrec.models.bag_of_words import BagOfWords, BagOfWordsConfig

START_SECONDS = 200.0


def environment(home: Path, **settings: str | None) -> dict[str, str]:
    """The environment of a child process: only these settings (`redis_url="..."` is SEQREC_REDIS_URL), one thread."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEQREC_")}
    named = {f"SEQREC_{name.upper()}": value for name, value in settings.items() if value is not None}
    return inherited | {"SEQREC_HOME": str(home), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | named


def seqrec(home: Path, *argv: str, **settings: str | None) -> str:
    """Run a command of the program. -> its standard output. Raises RuntimeError with its log if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "seqrec", *argv], env=environment(home, **settings), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"seqrec {' '.join(argv)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def make_checkpoint(path: Path, **config: Any) -> Path:
    """A checkpoint of the model without weights, for measurements that do not depend on the model."""
    save_checkpoint(path, "bag_of_words", BagOfWords(BagOfWordsConfig(**config)))
    return path


class Service:
    """Does not run before `start`. `url` is its address."""

    url: str
    process: subprocess.Popen[bytes]

    def __init__(self, home: Path, log: Path, **settings: str | None) -> None:
        self.home, self.log = home, log
        self.settings: Mapping[str, str | None] = {"port": "0", "deadline": "30", **settings}

    def start(self, **settings: str | None) -> Service:
        """Start it, optionally with other `settings`, and wait until it is ready. Raises RuntimeError."""
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "seqrec", "serve"],
                env=environment(self.home, **{**self.settings, **settings}),
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_SECONDS
        while not (lines := [line for line in self._lines(said) if "listening on " in line]):
            self._alive(end)
        self.url = lines[-1].partition("listening on ")[2].split()[0]
        self.until_ready(end)
        return self

    def until_ready(self, end: float) -> None:
        """Wait until /readyz answers 200, or until `end` (time.monotonic)."""
        while True:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=START_SECONDS).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            self._alive(end)

    def request(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Over a new connection: with several workers, any of them may answer."""
        return httpx.request(method, f"{self.url}{path}", json=body, timeout=START_SECONDS)

    def workers(self) -> list[int]:
        """The process ids of the workers, or that of the service if it is a single process."""
        children = [child.pid for child in psutil.Process(self.process.pid).children() if _is_worker(child)]
        return children or [self.process.pid]

    def kill(self) -> None:
        """SIGKILL to the service and its workers; without effect if it does not run."""
        if not hasattr(self, "process"):
            return
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        self.process.kill()
        for child in family:
            if _is_worker(child):
                child.kill()
        self.process.wait()
        psutil.wait_procs(family, timeout=10)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end. -> its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def _alive(self, end: float) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"the service ended:\n{self.log.read_text(encoding='utf-8')[-4000:]}")
        if time.monotonic() > end:
            raise RuntimeError(f"the service is not ready:\n{self.log.read_text(encoding='utf-8')[-4000:]}")
        time.sleep(0.02)

    def _lines(self, begin: int) -> list[str]:
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace").splitlines()


def _is_worker(process: psutil.Process) -> bool:
    """Excludes reindex jobs, which are another program and continue when the service dies."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False
