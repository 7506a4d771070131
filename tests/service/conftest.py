"""A published home, and the service on it: in this process, or in one of its own."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from index.build.cli import index
from service.app import create_app
from service.settings import Settings

EVENTS = ["mug-1", "mug-1", "mug-1", "desk-1", "desk-1", "lamp-1"]
"""Item ids of the interactions: what popularity is made of."""
READY_SECONDS = 120


@pytest.fixture(scope="session")
def _built() -> dict[str, Path]:
    return {}


@pytest.fixture
def home(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    items_file: Path,
    bag_of_words_checkpoint: Path,
    _built: dict[str, Path],
) -> Path:
    """The tiny catalogue, indexed and published; a copy for each test."""
    if "home" not in _built:
        made = tmp_path_factory.mktemp("built")
        interactions = made / "interactions.csv"
        lines = [f"user,{item_id},{time}" for time, item_id in enumerate(EVENTS)]
        interactions.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
        data = ["--items", str(items_file), "--interactions", str(interactions)]
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SEQREC_HOME", str(made / "home"))
            index(["build", "--checkpoint", str(bag_of_words_checkpoint), *data, "--publish"])
        _built["home"] = made / "home"
    return shutil.copytree(_built["home"], tmp_path / "home")


@pytest.fixture
def make_client(home: Path) -> Iterator[Callable[..., TestClient]]:
    """The service on `home`, with settings of the test's choice; `wait=False`: also before it is ready."""
    with ExitStack() as stack:

        def make(wait: bool = True, **settings: Any) -> TestClient:
            app = create_app(Settings(home=home, follow_seconds=0.02, **settings))
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            if wait:
                wait_until_ready(client)
            return client

        yield make


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


@pytest.fixture(scope="session")
def _shared() -> Iterator[tuple[ExitStack, list[TestClient]]]:
    with ExitStack() as stack:
        yield stack, []


@pytest.fixture
def shared_client(request: pytest.FixtureRequest, _shared: tuple[ExitStack, list[TestClient]]) -> TestClient:
    """One service for all tests that change nothing."""
    stack, clients = _shared
    if not clients:
        app = create_app(Settings(home=request.getfixturevalue("home")))
        clients.append(stack.enter_context(TestClient(app, raise_server_exceptions=False)))
        wait_until_ready(clients[0])
    return clients[0]


@dataclass(frozen=True)
class Process:
    """A running `seqrec serve`."""

    popen: subprocess.Popen[bytes]
    url: str
    output: Path

    def log(self) -> str:
        return self.output.read_text(encoding="utf-8")


@pytest.fixture
def serve_process(home: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts `seqrec serve` on `home` as a process of its own, on a free port, and waits until it is ready.

    `ready`: where it answers /readyz, if that is elsewhere.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(verify: ssl.SSLContext | bool = True, ready: str | None = None, **environment: str) -> Process:
        output = tmp_path / f"serve-{len(started)}.log"
        with output.open("wb") as file:
            popen = subprocess.Popen(
                [sys.executable, "-m", "seqrec", "serve"],
                env=os.environ | {"SEQREC_HOME": str(home), "SEQREC_PORT": "0", "OMP_NUM_THREADS": "1"} | environment,
                stdout=file,
                stderr=file,
            )
        started.append(popen)
        process = Process(popen, _url(popen, output), output)
        with httpx.Client(
            base_url=ready or process.url.replace("0.0.0.0", "127.0.0.1"), verify=verify, timeout=READY_SECONDS
        ) as client:
            wait_until_ready(client)
        return process

    yield start
    for popen in started:
        popen.kill()
        popen.wait()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 127.0.0.1 and localhost, signed by itself, and its private key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext {names}"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def wait_until_ready(client: httpx.Client | TestClient) -> None:
    end = time.monotonic() + READY_SECONDS
    while (ready := client.get("/readyz")).status_code != 200:
        assert time.monotonic() < end, ready.text
        time.sleep(0.01)


def _url(popen: subprocess.Popen[bytes], output: Path) -> str:
    """Where it listens: it says so first of all."""
    end = time.monotonic() + READY_SECONDS
    while not (said := re.search(r"listening on (https?://[^\s\"]+)", output.read_text(encoding="utf-8"))):
        assert popen.poll() is None, output.read_text(encoding="utf-8")
        assert time.monotonic() < end
        time.sleep(0.01)
    return said[1]
