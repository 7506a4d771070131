"""docs/operations.md says the truth: every command in it runs, every metric and setting in it is one."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client import generate_latest
from starlette.testclient import TestClient

from index.build.consume_cli import ConsumerMetrics
from index.catalogue.base import CatalogueItem
from index.catalogue.open import open_catalogue
from seqrec import cli
from seqrec.data.items import make_item, read_items
from service.app import create_app
from service.settings import Settings
from tests.e2e.ready import Client, until_served


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_command_runs(
    page: str,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    items_file: Path,
    bag_of_words_checkpoint: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bag_of_words_checkpoint, tmp_path / "checkpoint")
    rows = [f'{item.item_id},"{item.attributes["title"]}"' for item in read_items(items_file)]
    (tmp_path / "products.csv").write_text("\n".join(["item_id,title", *rows]) + "\n", encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(lines) >= 12
    with ExitStack() as stack:
        clients: dict[str, TestClient] = {}
        home = "first"
        monkeypatch.setenv("SEQREC_HOME", home)
        cli.run("index", ["build", "--checkpoint", "checkpoint", "--items", str(items_file), "--publish"])
        for line in lines:
            program, *arguments = shlex.split(line)
            if program == "redis-cli" or "=" in program or arguments[:1] in (["consume"], ["retrain"]):
                continue  # they need another server, or train: tests of their own run them
            if arguments[:2] == ["catalogue", "restore"]:
                home = "second"
                monkeypatch.setenv("SEQREC_HOME", home)
            if "reindex" in line:  # without a change there is nothing to do, and nothing to go back to
                change_an_item(Path(home))
            if program == "seqrec":
                cli.run(arguments[0], arguments[1:])
            elif program == "curl":
                if home not in clients:
                    app = create_app(Settings(home=Path(home), follow_seconds=0.05, deadline=60))
                    clients[home] = stack.enter_context(Client(app))
                    until_served(clients[home], None)
                method = arguments[1] if arguments[0] == "-X" else "GET"
                reply = clients[home].request(method, urlsplit(arguments[-1]).path)
                assert reply.status_code in (200, 202), f"{line}: {reply.text}"
                if reply.status_code == 202:
                    until_done(clients[home], reply.json()["id"])
            else:
                assert program == "make"
                assert f"\n{arguments[0]}:" in (root / "Makefile").read_text(encoding="utf-8")


def change_an_item(home: Path) -> None:
    with closing(open_catalogue(home)) as catalogue:
        catalogue.put([CatalogueItem(make_item("changed", {"title": f"change {catalogue.head()}"}))])


def until_done(client: TestClient, job_id: str) -> None:
    while (job := client.get(f"/reindex/{job_id}").json())["state"] != "done":
        assert job["state"] in ("queued", "running"), json.dumps(job)


def test_metrics_and_settings_are_there(page: str, tmp_path: Path, bag_of_words_checkpoint: Path) -> None:
    with TestClient(create_app(Settings(home=tmp_path))) as client:
        text = client.get("/metrics").text + generate_latest(ConsumerMetrics(None).registry).decode()
    for name in set(re.findall(r"`(?:time\(\) - )?(seqrec_\w+)", page)):
        assert re.search(rf"^# TYPE {name.removesuffix('_total')} ", text, re.MULTILINE) or name in text, name
    settings = {f"SEQREC_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"SEQREC_\w+", page)) <= settings


def test_every_link_within_the_page_leads_somewhere(page: str) -> None:
    titles = (re.sub(r"[^\w -]", "", title).strip().lower() for title in re.findall(r"^#+ (.*)", page, re.MULTILINE))
    anchors = {title.replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors
