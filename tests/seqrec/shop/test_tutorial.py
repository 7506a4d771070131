"""docs/your-own-shop.md: its commands run on the export that it describes, and print what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from seqrec import cli
from seqrec.shop.project import Project, read_project
from seqrec.shop.stages import STATE, read_state
from seqrec.shop.up import example_history
from service.app import create_app
from service.settings import Settings
from tests.seqrec.shop import exports
from tests.service.conftest import wait_until_ready


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "your-own-shop.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQREC_HOME", "")
    exports.event_log(tmp_path, users=300)
    return tmp_path


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines]


def run(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    cli.run(command[0], command[1:])
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_page_shows_what_its_commands_print(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listing, init_output, check_output = blocks(page, "text")
    for line in filter(None, listing.splitlines()[2:]):
        assert re.sub(r"\s+", "", line) in [
            re.sub(r"\s+", "", one)
            for path in ("products.tsv", "log/events-1.csv")
            for one in (folder / path).read_text("utf-8-sig").splitlines()[:2]
        ]
    init, check, up, status = commands(page)
    assert (init[0], check, up, status) == ("init", ["check"], ["up"], ["status"])
    assert run(init, capsys) == init_output
    written = (folder / "shop.toml").read_text(encoding="utf-8")
    shown, _ = blocks(page, "toml")  # the other one is of orders as JSON
    for line in shown.splitlines():
        assert line in written.splitlines()
    assert check_output in run(check, capsys)
    (folder / "shop.toml").write_text(written.replace('split = "leave-one-out"', 'split = "last-basket"'), "utf-8")
    assert "warning" not in run(check, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("export", ["semicolons", "event_log", "parquet"])
def test_from_an_export_to_a_page_with_recommendations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], export: str
) -> None:
    """Trains for a few steps; quality is not looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEQREC_HOME", "")
    monkeypatch.delenv("SEQREC_HOME")
    getattr(exports, export)(tmp_path, users=60)
    files = {
        "semicolons": ["--items", "artikel.csv", "--events", "bestellungen.csv"],
        "event_log": ["--items", "products.tsv", "--events", "log"],
        "parquet": ["--items", "catalog.parquet", "--events", "ratings.parquet"],
    }
    cli.run("init", files[export])
    text = (tmp_path / "shop.toml").read_text(encoding="utf-8")
    text = text.replace('preset = ""', 'preset = "demo"\nsettings = { optimizer = { max_steps = 2 } }')
    (tmp_path / "shop.toml").write_text(text, encoding="utf-8")
    out = run(["up", "--until", "index"], capsys)
    assert "[4/4] index: done" in out
    assert "served from now on" in out
    project = read_project(tmp_path / "shop.toml")
    assert set(read_state(project.home / STATE)) == {"import", "train", "evaluate", "index"}
    assert run(["up", "--until", "index"], capsys).count("up to date") == 4
    shown = run(["status"], capsys)
    assert shown.count("up to date") == 4
    assert "published: " in shown
    assert "hybrid" in shown
    _ask_the_service(project)


def _ask_the_service(project: Project) -> None:
    """The page and the request that `seqrec up` shows when it serves: a user's next items, with their names."""
    history = example_history(project)
    with TestClient(create_app(Settings(home=project.home))) as client:
        wait_until_ready(client)
        page = client.get("/", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
        answer = client.post("/recommend", json={"history": list(history), "k": 5})
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    assert len(items) == 5
    title = project.config.items.texts[0]
    assert all(item["attributes"].get(title) for item in items)
    assert history
    assert all(history.values())
