"""The example for nginx in deploy/: it fits the settings and, where nginx is installed, it works."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from index.keys.base import make_key
from index.keys.open import open_keys
from service.settings import Settings


def blocks(text: str) -> list[list[str]]:
    """The directives of an nginx configuration as words; a block opens with "{" and closes with "}"."""
    words = re.findall(r'"[^"]*"|\'[^\']*\'|[{};]|[^\s{};]+', re.sub(r"#.*", "", text))
    directives: list[list[str]] = []
    current: list[str] = []
    for word in words:
        if word in "{};":
            directives.append([*current, word] if word != ";" else current)
            current = []
        else:
            current.append(word)
    assert current == [], "a directive without an end"
    return directives


@pytest.fixture(scope="module")
def nginx_conf(root: Path) -> str:
    return (root / "deploy" / "nginx.conf").read_text(encoding="utf-8")


def test_the_nginx_example_fits_the_settings(nginx_conf: str) -> None:
    directives = blocks(nginx_conf)
    depth = 0
    for directive in directives:
        depth += (directive[-1] == "{") - (directive[-1] == "}")
        assert depth >= 0
    assert depth == 0
    named = {directive[0]: directive[1:] for directive in directives}
    settings = Settings()
    assert named["client_max_body_size"] == [f"{settings.max_body_bytes // 2**20}m"]
    assert int(named["proxy_read_timeout"][0].rstrip("s")) > settings.write_deadline
    assert named["upstream"] == ["seqrec", "{"]
    assert ["server", f"{settings.host}:{settings.port}"] in directives
    assert "authorization" not in " ".join(named["log_format"]).lower()


def test_the_nginx_example_restricts_paths_that_exist(nginx_conf: str, root: Path) -> None:
    [pattern] = re.findall(r"location ~ (\S+)", nginx_conf)
    document = (root / "docs" / "openapi.json").read_text(encoding="utf-8")
    for path in ("/metrics", "/reindex"):
        assert re.match(pattern, path)
        assert f'"{path}"' in document
    assert re.match(pattern, "/docs")
    assert not re.match(pattern, "/recommend")


@pytest.fixture
def behind_nginx(
    nginx_conf: str, tmp_path: Path, certificate: tuple[Path, Path]
) -> Iterator[Callable[[int], tuple[str, Path]]]:
    """nginx with the example, in front of a port; paths and ports are replaced, nothing else."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int) -> tuple[str, Path]:
        plain, secure = free_port(), free_port()
        log = tmp_path / "access.log"
        text = nginx_conf
        for old, new in {
            "127.0.0.1:8000": f"127.0.0.1:{port}",
            "listen 80;": f"listen 127.0.0.1:{plain};",
            "listen 443 ": f"listen 127.0.0.1:{secure} ",
            "/etc/ssl/seqrec/cert.pem": str(certificate[0]),
            "/etc/ssl/seqrec/key.pem": str(certificate[1]),
            "/var/log/nginx/seqrec.log": str(log),
            "http {": "http { " + " ".join(f"{name}_temp_path {tmp_path}/{name};" for name in TEMPORARY),
        }.items():
            assert old in text
            text = text.replace(old, new)
        conf = tmp_path / "nginx.conf"
        conf.write_text(f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n{text}")
        started.append(subprocess.Popen([program, "-e", tmp_path / "error.log", "-p", tmp_path, "-c", conf]))
        end = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", secure)) == 0:
                    return f"https://localhost:{secure}", log
            assert started[-1].poll() is None, (tmp_path / "error.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)

    yield start
    for process in started:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_the_service_answers_behind_nginx(
    behind_nginx: Callable[[int], tuple[str, Path]],
    serve_process: Callable[..., Any],
    home: Path,
    certificate: tuple[Path, Path],
) -> None:
    key, secret = make_key("shop", ["admin"])
    with closing(open_keys(home)) as store:
        store.add(key)
    process = serve_process(SEQREC_ALLOW_ANONYMOUS="false", SEQREC_ALLOWED_HOSTS="recommend.example")
    url, log = behind_nginx(urlsplit(process.url).port or 0)
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    with httpx.Client(base_url=url, verify=trusted, headers={"host": "recommend.example"}) as client:
        assert client.post("/recommend", json={"history": []}).status_code == 401
        headers = {"x-api-key": secret}
        answer = client.post("/recommend", json={"history": ["desk-1"]}, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert client.get("/metrics", headers=headers).status_code == 403, "not from this network"
        large = client.post("/recommend", content=b" " * 5 * 2**20, headers=headers)
        assert large.status_code == 413
    text = log.read_text()
    assert answer.headers["x-request-id"] in text
    assert secret not in text


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
