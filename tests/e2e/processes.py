"""The program as a process of its own, with a client."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from benchmarks.tools.service_process import Service


class Server(Service):
    """`seqrec serve` on a free port."""

    client: httpx.Client

    def __init__(self, home: Path, log: Path) -> None:
        super().__init__(home, log)

    def start(self, **settings: str | None) -> Server:
        super().start(**settings)
        self.client = httpx.Client(base_url=self.url, timeout=60)
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.client.close()
        return super().stop(number)

    def kill(self) -> None:
        """SIGKILL, whatever it is doing; nothing if it has ended."""
        if hasattr(self, "client"):
            self.client.close()
        super().kill()
