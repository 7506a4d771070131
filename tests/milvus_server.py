"""A Milvus server as a process that tests start, kill and start again: milvus-lite on a free port of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from index.engines.milvus import Milvus
from seqrec.errors import EngineUnavailable

SECONDS = 60


class MilvusServer:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, prefix: str = "seqrec") -> str:
        return f"http://127.0.0.1:{self._port}?prefix={prefix}"

    def start(self) -> None:
        """Returns when it answers."""
        command = [
            "server",
            "--data-dir",
            str(self._directory / "data"),
            "--host",
            "127.0.0.1",
            "--port",
            f"{self._port}",
        ]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "milvus_lite", *command], stdout=log, stderr=log)
        until = time.monotonic() + SECONDS
        while True:
            milvus = Milvus(self.url())
            try:
                milvus.check()
            except EngineUnavailable:
                assert self._process.poll() is None, (self._directory / "log").read_text()
                assert time.monotonic() < until, "it does not answer"
                time.sleep(0.1)
            else:
                return
            finally:
                milvus.close()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
