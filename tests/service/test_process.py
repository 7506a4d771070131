"""The real program in a process of its own: start, stop, and being killed."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

pytestmark = pytest.mark.slow

ServeProcess = Callable[..., Any]


def run_serve(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, where that is at once."""
    return subprocess.run(
        [sys.executable, "-m", "seqrec", "serve", *arguments],
        env=os.environ | {"SEQREC_HOME": str(home), "SEQREC_PORT": "0", "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_port_that_is_taken_is_reported_before_anything_is_loaded(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run_serve(home, SEQREC_PORT=port)
    assert ended.returncode == 1
    assert (
        f"SEQREC_PORT: port {port} of 127.0.0.1 is in use by another program; stop it, or choose another port"
        in ended.stderr
    )
    assert "Traceback" not in ended.stderr


def test_a_home_without_a_snapshot_says_what_to_do(tmp_path: Path) -> None:
    ended = run_serve(tmp_path / "nowhere")
    assert ended.returncode == 1
    assert "there is no catalogue in" in ended.stderr
    assert "`seqrec up`, or `seqrec index build --publish`" in ended.stderr
    assert not (tmp_path / "nowhere").exists()


def test_help_lists_every_setting(tmp_path: Path) -> None:
    ended = run_serve(tmp_path, "--help")
    assert ended.returncode == 0
    for name in ("SEQREC_HOME", "SEQREC_PORT", "SEQREC_DEADLINE"):
        assert name in ended.stdout


def test_an_id_of_any_characters_in_the_path(serve_process: ServeProcess) -> None:
    """Over the wire, since the test client of other tests decodes a path twice."""
    process = serve_process()
    item_id = "a/b c%2F?#//.ערב/"
    items = {"items": [{"item_id": item_id, "attributes": {"title": "Slash"}}]}
    assert httpx.post(f"{process.url}/items", json=items).status_code == 200
    url = f"{process.url}/items/{quote(item_id, safe='')}"
    assert httpx.get(url).json()["item_id"] == item_id
    assert httpx.delete(url).status_code == 200
    assert httpx.get(url).json()["detail"] == f"no item {item_id!r} in the catalogue"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_what_is_in_hand_and_exits_with_0(serve_process: ServeProcess, number: int) -> None:
    """Requests that arrived before the signal are answered; the process ends by itself, without noise."""
    process = serve_process()
    # So many words take long enough that the signal comes while they are encoded.
    items = [
        {"item_id": f"n{n}", "attributes": {"title": " ".join(f"w{n}x{i}" for i in range(20))}} for n in range(300)
    ]
    answers: list[int] = []

    def post() -> None:
        answers.append(httpx.post(f"{process.url}/items", json={"items": items}, timeout=60).status_code)

    thread = threading.Thread(target=post)
    thread.start()
    end = time.monotonic() + 20
    while 'seqrec_batch_units_count{lane="items"}' not in httpx.get(f"{process.url}/metrics").text:
        assert time.monotonic() < end
    process.popen.send_signal(number)
    thread.join(60)
    assert answers == [200]
    assert process.popen.wait(30) == 0
    assert "Traceback" not in process.log()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{process.url}/healthz")


def test_killed_while_items_are_posted_nothing_acknowledged_is_lost(serve_process: ServeProcess) -> None:
    """SIGKILL in the middle of a stream of POST /items; after a restart all that was answered is there and found."""
    process = serve_process()
    acknowledged: list[tuple[int, int]] = []  # number of the item, its seq
    lock = threading.Lock()
    killed = threading.Event()

    def stream(worker: int) -> None:
        with httpx.Client(base_url=process.url, timeout=30) as client:
            for number in range(worker, 100_000, 4):
                item = {"item_id": f"k-{number}", "attributes": {"title": f"Killer product {number}"}}
                try:
                    response = client.post("/items", json={"items": [item]})
                except httpx.TransportError:
                    assert killed.is_set()
                    return
                assert response.status_code == 200
                with lock:
                    acknowledged.append((number, response.json()["seq"]))

    threads = [threading.Thread(target=stream, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while len(acknowledged) < 60 and time.monotonic() < end:
        time.sleep(0.005)
    killed.set()
    process.popen.kill()
    for thread in threads:
        thread.join(30)
    assert len(acknowledged) >= 60

    again = serve_process()
    with httpx.Client(base_url=again.url, timeout=30) as client:
        assert client.get("/readyz").json()["seq"] >= max(seq for _, seq in acknowledged)
        for number, seq in acknowledged:
            stored = client.get(f"/items/k-{number}").json()
            assert stored["seq"] == seq
            assert stored["searchable"] is True
            body = {"history": [{"attributes": {"title": f"Killer product {number}"}}], "k": 1}
            assert client.post("/recommend", json=body).json()["items"][0]["item_id"] == f"k-{number}"


def test_a_client_that_leaves_takes_its_work_out_of_the_queue(serve_process: ServeProcess) -> None:
    process = serve_process()
    items = [
        {"item_id": f"n{n}", "attributes": {"title": " ".join(f"w{n}x{i}" for i in range(300))}} for n in range(1000)
    ]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{process.url}/items", json={"items": items}, timeout=httpx.Timeout(20, read=0.2))
    end = time.monotonic() + 20
    while True:
        lines = httpx.get(f"{process.url}/metrics").text.splitlines()
        if "seqrec_queue_item_tokens 0.0" in lines and 'status="499"' in "".join(lines):
            break
        assert time.monotonic() < end
        time.sleep(0.01)
    assert httpx.get(f"{process.url}/items/n999").status_code == 404, "nothing was written"


def test_a_disk_that_takes_no_more_is_reported_reads_go_on_and_it_recovers(serve_process: ServeProcess) -> None:
    """The kernel refuses every write of the process to a file, as a full disk does."""
    process = serve_process()
    body = {"items": [{"item_id": "kite", "attributes": {"title": "Paper kite"}}]}
    with httpx.Client(base_url=process.url, timeout=60) as client:
        before = client.post("/recommend", json={"history": ["desk-1"]}).json()["items"]
        limits = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for method, path, sent in (
            ("POST", "/items", body),
            ("DELETE", "/items/desk-2", None),
            ("POST", "/events", {"events": [{"user_id": "ann", "item_id": "desk-1"}]}),
            ("POST", "/reindex", None),
        ):
            refused = client.request(method, path, json=sent)
            assert refused.status_code == 503, refused.text
            assert refused.headers["content-type"] == "application/problem+json"
        assert client.post("/recommend", json={"history": ["desk-1"]}).json()["items"] == before
        assert client.get("/items/kite").status_code == 404
        assert client.get("/items/desk-2").status_code == 200
        assert client.get("/readyz").status_code == 200
        resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, limits)
        assert client.post("/items", json=body).status_code == 200
        found = client.post("/recommend", json={"history": [{"attributes": {"title": "paper kite"}}], "k": 1}).json()
        assert found["items"][0]["item_id"] == "kite"


def test_an_address_for_others_without_keys_is_refused_with_the_way_out(home: Path) -> None:
    ended = run_serve(home, SEQREC_HOST="0.0.0.0")
    assert ended.returncode == 1
    assert "SEQREC_HOST: there are no API keys. '0.0.0.0' can be reached from other machines" in ended.stderr
    assert "`seqrec keys create NAME --scope admin`" in ended.stderr
    assert "SEQREC_ALLOW_ANONYMOUS=true" in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = run_serve(home, SEQREC_ALLOW_ANONYMOUS="false")
    assert "SEQREC_ALLOW_ANONYMOUS: there are no API keys." in ended.stderr


def test_an_address_for_others_is_served_with_keys_or_where_that_is_set(
    serve_process: ServeProcess, home: Path
) -> None:
    open_to_all = serve_process(SEQREC_HOST="0.0.0.0", SEQREC_ALLOW_ANONYMOUS="true")
    assert "there are no API keys: everybody who reaches this address may do everything" in open_to_all.log()
    created = subprocess.run(
        [sys.executable, "-m", "seqrec", "keys", "create", "ops", "--scope", "admin", "--home", str(home)],
        capture_output=True,
        text=True,
        check=True,
    )
    headers = {"x-api-key": created.stdout.strip()}
    with_key = serve_process(SEQREC_HOST="0.0.0.0")
    for process in (with_key, open_to_all):
        url = process.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_serves_https(serve_process: ServeProcess, certificate: tuple[Path, Path], workers: str) -> None:
    cert, key = certificate
    trusted = ssl.create_default_context(cafile=str(cert))
    process = serve_process(verify=trusted, SEQREC_TLS_CERT=str(cert), SEQREC_TLS_KEY=str(key), SEQREC_WORKERS=workers)
    assert process.url.startswith("https://127.0.0.1:")
    with httpx.Client(base_url=process.url, verify=trusted) as client:
        assert client.post("/recommend", json={"history": ["desk-1"]}).status_code == 200
        big = {"history": ["desk-1"], "exclude": [f"item-{n}" for n in range(10_000)]}
        assert client.post("/recommend", json=big).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(process.url.replace("https", "http") + "/healthz")
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(60) == 0
    assert "Traceback" not in process.log()


def test_a_certificate_that_cannot_be_used_is_named(home: Path, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    ended = run_serve(home, SEQREC_TLS_CERT=str(cert))
    assert "SEQREC_TLS_CERT and SEQREC_TLS_KEY are set together or not at all" in ended.stderr
    ended = run_serve(home, SEQREC_TLS_CERT=str(tmp_path / "none.pem"), SEQREC_TLS_KEY=str(key))
    assert "none.pem and" in ended.stderr
    assert "No such file or directory" in ended.stderr
    ended = run_serve(home, SEQREC_TLS_CERT=str(cert), SEQREC_TLS_KEY=str(cert))
    assert ended.returncode == 1
    assert "a PEM certificate chain and its private key without a password are needed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_json_log_lines(serve_process: ServeProcess) -> None:
    process = serve_process(SEQREC_LOG_FORMAT="json")
    httpx.post(f"{process.url}/items", json={"items": [{"item_id": "a", "attributes": {"title": "b"}}]})
    lines = [json.loads(line) for line in process.log().splitlines() if "computing with" not in line]
    assert all({"time", "level", "logger", "process"} <= line.keys() for line in lines)
    [access] = [line for line in lines if line["logger"] == "service.access" and line["route"] == "/items"]
    assert access["status"] == 200
    assert access["stages"]["write"] > 0
    [audit] = [line for line in lines if line["logger"] == "service.audit"]
    assert audit["request_id"] == access["request_id"]
    assert audit["items"] == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_metrics_readiness_and_reindexes_on_a_private_port(serve_process: ServeProcess, workers: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    private = f"http://127.0.0.1:{port}"
    process = serve_process(ready=private, SEQREC_PRIVATE_PORT=str(port), SEQREC_WORKERS=workers)
    for path in ("/metrics", "/readyz"):
        assert httpx.get(private + path).status_code == 200
        refused = httpx.get(process.url + path)
        assert refused.status_code == 404
        assert refused.headers["content-type"] == "application/problem+json"
    assert httpx.post(f"{process.url}/reindex").status_code == 404
    assert httpx.get(f"{private}/reindex/000000000000").json()["type"].endswith("job-not-found")
    for path, at in (("/healthz", 200), ("/key", 200), ("/items/desk-1", 404), ("/", 404), ("/docs", 404)):
        assert httpx.get(private + path).status_code == at, path
        assert httpx.get(process.url + path).status_code == 200, path


def test_two_equal_ports_are_refused(home: Path) -> None:
    ended = run_serve(home, SEQREC_PORT="8123", SEQREC_PRIVATE_PORT="8123")
    assert "SEQREC_PRIVATE_PORT and SEQREC_PORT are the same" in ended.stderr
