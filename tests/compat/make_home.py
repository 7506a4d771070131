"""Wrote home-0.1.0.tar.xz and home-0.1.0.json, with commit d87e8d143c964927845eace236264b48e77dcabd.

    git worktree add ../old d87e8d1 && cd ../old && PYTHONPATH=$PWD python ../this/tests/compat/make_home.py

It calls the program only (`python -m seqrec`) and talks to its service over HTTP, so it depends on no module of it. The
archive is a shop as somebody has it who upgrades:

items.jsonl, interactions.csv, other/   what was trained on
text.toml, guru.toml                    the user's own configurations; guru.toml has settings that were renamed since
runs/text, runs/residual, runs/ids      finished runs: a Recformer of two towers, a residual on it, a GRU4Rec
runs/stopped, runs/guru                 runs that were killed: a SASRec by preset, a RecGURU by guru.toml
home/                                   SQLite; two snapshots of runs/residual, one of runs/text; changes after them
redis/home/, redis/commands.aof         the same items with the catalogue in Redis; the commands that fill the server
dump.jsonl.gz                           of the catalogue in home/, with the users' events

The JSON file has what the service of that version answered on these, and how it continued the two killed runs. Items and
events are from data/online-retail, whose SOURCE.md names source and licence (CC BY 4.0); titles, prices and 8 events of
each customer are kept, tags are made of the title.

When a format changes: let the version before the change write another archive with a NAME of its own, keep this one, and
run tests/compat/test_old_home.py on both.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import httpx

HERE = Path(__file__).parent
NAME = "home-0.1.0"
NEW = ("new/1", "ערב")
"""Items that are posted after the snapshot."""
COLOURS = ("red", "white", "pink", "blue", "black", "green", "ivory", "silver", "antique", "vintage")

TEXT = """\
stages = ["stage1", "stage2"]
seed = 1
device = "cpu"
threads = 1

[text]
attributes = ["title", "tags"]
max_attr_num = 2
max_attr_length = 16
vocab_size = 300

[model]
name = "recformer"

[model.settings]
hidden_size = 8
num_layers = 1
num_heads = 2
intermediate_size = 16
attention_window = 16
max_token_num = 64
max_position_embeddings = 66
max_item_embeddings = 9
dropout = 0.0

[stage1]
batch_size = 12

[stage2]
batch_size = 12

[optimizer]
learning_rate = 1e-2
max_steps = 200

[stage2.optimizer]
learning_rate = 5e-3
max_steps = 40

[validation]
checks = 2
"""

GURU = """\
stages = ["adversarial", "sequence"]
seed = 1
device = "cpu"
threads = 1

[model]
name = "recguru"

[model.settings]
dim = 8
layers = 1
heads = 1
inner = 8
max_length = 8
dropout = 0.0
negatives = 2
told_from = 3
discriminator = 8

[adversarial]
data = ["other"]
batch_size = 12
alone_epochs = 4

[adversarial.optimizer]
max_epochs = 60

[adversarial.validation]
checks = 6

[sequence]
batch_size = 12

[optimizer]
learning_rate = 1e-2
max_epochs = 4

[validation]
checks = 2
"""

DATA = ("--items", "items.jsonl", "--interactions", "interactions.csv")
ON_ONE_CORE = ("--set", "device=cpu", "--set", "threads=1")
STOPPED = (
    *("train", *DATA, "--preset", "sasrec", *ON_ONE_CORE, "--set", "model.settings.dim=8"),
    *("--set", "model.settings.inner=8", "--set", "model.settings.layers=1", "--set", "model.settings.max_length=8"),
    *(
        "--set",
        "model.settings.negatives=8",
        "--set",
        "sequence.batch_size=12",
        "--set",
        "optimizer.max_epochs=60",
        "--set",
        "validation.checks=6",
    ),
    *("--out", "runs/stopped"),
)
GURU_RUN = ("train", *DATA, "--config", "guru.toml", "--out", "runs/guru")


def main() -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    code = Path.cwd()
    with tempfile.TemporaryDirectory() as made:
        shop = Path(made)
        write_data(code / "data" / "online-retail", shop)
        (shop / "text.toml").write_text(TEXT)
        (shop / "guru.toml").write_text(GURU)
        train(shop)
        expected: dict[str, Any] = {"commit": commit, "stopped": list(STOPPED), "guru": list(GURU_RUN)}
        kept = ("path", "state", "stages", "stage", "steps", "ndcg", "data_digest")
        runs = json.loads(seqrec(shop, "runs", "runs", "--json"))
        expected["runs"] = [{name: run[name] for name in kept} for run in runs]
        expected["continued"] = {name: continued(shop, command) for name, command in UNFINISHED.items()}
        expected |= fill_home(shop)
        expected |= fill_redis(shop)
        clean(shop)
        pack(shop, HERE / f"{NAME}.tar.xz")
    (HERE / f"{NAME}.json").write_text(one_entry_a_line(expected), encoding="utf-8")


def one_entry_a_line(record: dict[str, Any]) -> str:
    """JSON with a line for each entry of the tables and lists in `record`: a line of a diff is one answer."""
    parts = []
    for name, value in record.items():
        if isinstance(value, dict):
            inner = [
                f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(of, ensure_ascii=False)}"
                for key, of in value.items()
            ]
            text = "{\n  " + ",\n  ".join(inner) + "\n }"
        elif isinstance(value, list):
            text = "[\n  " + ",\n  ".join(json.dumps(of, ensure_ascii=False) for of in value) + "\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


UNFINISHED = {"stopped": STOPPED, "guru": GURU_RUN}


# Data


def write_data(source: Path, shop: Path) -> None:
    """The 40 most bought items that differ in their text, and what 30 customers had of them; 20 others for `other`."""
    with gzip.open(source / "items.jsonl.gz", "rt", encoding="utf-8") as file:
        items = {record["item_id"]: record["attributes"] for record in map(json.loads, file)}
    with gzip.open(source / "interactions.csv.gz", "rt", encoding="utf-8", newline="") as file:
        events = [(row["user_id"], row["item_id"], int(row["timestamp"])) for row in csv.DictReader(file)]
    popular = [item_id for item_id, _ in Counter(item_id for _, item_id, _ in events).most_common(60)]
    write_shop(shop, items, events, popular[:40], users=30)
    write_shop(shop / "other", items, events, popular[40:], users=14)


def write_shop(
    folder: Path, items: dict[str, Any], events: list[tuple[str, str, int]], chosen: list[str], users: int
) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        for item_id in sorted(chosen):
            title = items[item_id]["title"]
            tags = [word for word in title.lower().split() if word in COLOURS]
            attributes = {"title": title, "tags": tags or ["plain"], "price": float(items[item_id]["price"].split()[0])}
            file.write(json.dumps({"item_id": item_id, "attributes": attributes}) + "\n")
    histories: dict[str, list[tuple[str, int]]] = {}
    for user_id, item_id, timestamp in events:
        if item_id in chosen:
            histories.setdefault(user_id, []).append((item_id, timestamp))
    long = [user_id for user_id, had in histories.items() if len(had) >= 8][:users]
    lines = [f"{user_id},{item_id},{timestamp}" for user_id in long for item_id, timestamp in histories[user_id][:8]]
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n", encoding="utf-8")


# Runs


def train(shop: Path) -> None:
    seqrec(shop, "train", *DATA, "--config", "text.toml", "--out", "runs/text")
    residual = {
        "residual.dim": "8",
        "residual.batch_size": "32",
        "optimizer.max_epochs": "10",
        "validation.checks": "2",
    }
    start = ("--set", "model.start_from=runs/text/checkpoint", *ON_ONE_CORE)
    seqrec(shop, "train", *DATA, "--preset", "residual", *start, *sets(residual), "--out", "runs/residual")
    ids = {"model.settings.dim": "8", "model.settings.hidden": "8", "model.settings.max_length": "8"}
    ids |= {"sequence.batch_size": "12", "optimizer.max_epochs": "20", "validation.checks": "2"}
    seqrec(shop, "train", *DATA, "--preset", "gru4rec", *ON_ONE_CORE, *sets(ids), "--out", "runs/ids")
    for name, command in UNFINISHED.items():
        kill_midway(shop, shop / "runs" / name, command)


def sets(changes: dict[str, str]) -> list[str]:
    return [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]


def kill_midway(shop: Path, run: Path, command: tuple[str, ...], checks: int = 2) -> None:
    """SIGKILL a while after a check: steps that metrics.jsonl has and the saved state has not are made again."""
    process = subprocess.Popen([sys.executable, "-m", "seqrec", *command], cwd=shop, env=environment(shop))
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{run} ended before it could be killed")
        done = entries(run, "validation")
        # The state is saved once the check is written, and before the next step.
        if len(done) >= checks and entries(run, "step")[-1]["step"] > done[-1]["step"]:
            break
        time.sleep(0.001)
    process.kill()
    process.wait()


def continued(shop: Path, command: tuple[str, ...]) -> dict[str, Any]:
    """What this version makes of a killed run: the losses that follow, and how it ended. In a copy."""
    with tempfile.TemporaryDirectory() as copied:
        copy = shutil.copytree(shop, Path(copied) / "shop")
        run = copy / command[-1]
        stage, saved = (entries(run, "validation")[-1][name] for name in ("stage", "step"))
        seqrec(copy, *command)
        steps = entries(run, "step")
        record = json.loads((run / "run.json").read_text())
        return {
            "stage": stage,
            "saved": saved,
            "losses": {str(step["step"]): step["loss"] for step in steps if step["stage"] == stage},
            "steps": record["steps"],
            "ndcg": [stage["best"]["ndcg"] for stage in record["by_stage"]],
            "checks": [[check["stage"], check["step"], check["ndcg"]] for check in entries(run, "validation")],
        }


def entries(run: Path, kind: str) -> list[dict[str, Any]]:
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:  # it is being written
            continue
    return [entry for entry in found if entry["kind"] == kind]


# The home


def fill_home(shop: Path) -> dict[str, Any]:
    home = shop / "home"
    first = ("--checkpoint", "runs/residual/checkpoint", "--index", "HNSW8", "--publish")
    seqrec(shop, "index", "build", *DATA, *first)
    with service(shop, home) as client:  # a reindex over HTTP leaves the record of a job
        job = ok(client.post("/reindex"))
        while job["state"] in ("queued", "running"):
            time.sleep(0.05)
            job = ok(client.get(f"/reindex/{job['id']}"))
    seqrec(shop, "reindex", "--checkpoint", "runs/text/checkpoint", "--index", "flat")
    ids = item_ids(shop / "items.jsonl")
    with service(shop, home) as client:
        change(client, ids)
        stored = {item_id: ok(client.get(f"/items/{quote(item_id)}")) for item_id in ids if item_id != ids[3]}
        stored |= {item_id: ok(client.get(f"/items/{quote(item_id)}")) for item_id in NEW}
        expected: dict[str, Any] = {"job": job, "answers": answers(client, ids), "items": stored, "deleted": ids[3]}
    expected["dumped"] = json.loads(seqrec(shop, "catalogue", "dump", "dump.jsonl.gz", "--histories", "--json"))
    expected["snapshots"] = json.loads(seqrec(shop, "index", "list", "--json"))
    with tempfile.TemporaryDirectory() as copied:
        copy = shutil.copytree(shop, Path(copied) / "shop")
        seqrec(copy, "index", "rollback")
        with service(copy, copy / "home") as client:
            expected["rolled_back"] = answers(client, ids)
    return expected


def fill_redis(shop: Path) -> dict[str, Any]:
    """The dump restored into a Redis, indexed, changed; the server's log of commands is kept."""
    from benchmarks.tools.redis_server import RedisServer

    ids = item_ids(shop / "items.jsonl")
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory)).start()
        try:
            settings = {"SEQREC_HOME": str(shop / "redis" / "home"), "SEQREC_REDIS_URL": server.url}
            seqrec(shop, "catalogue", "restore", "dump.jsonl.gz", **settings)
            seqrec(shop, "reindex", "--checkpoint", "runs/text/checkpoint", **settings)
            with service(shop, **settings) as client:
                lamp = {"item_id": "new/2", "attributes": {"title": "Black lantern", "tags": ["black"]}}
                ok(client.post("/items", json={"items": [lamp]}))
                ok(client.delete(f"/items/{ids[9]}"))
                event = {"user_id": "dora", "item_id": ids[7], "timestamp": 1.7e9, "event_id": "once"}
                ok(client.post("/events", json={"events": [event]}))
                expected = {"redis": answers(client, ids)}
        finally:
            server.stop()
        [commands] = Path(directory).glob("appendonlydir/*.incr.aof")
        shutil.copyfile(commands, shop / "redis" / "commands.aof")
    return expected


def item_ids(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["item_id"] for line in file]


def change(client: httpx.Client, ids: list[str]) -> None:
    """What the log has after the snapshot, and histories."""
    first, second, third = (ok(client.get(f"/items/{item_id}"))["attributes"] for item_id in ids[:3])
    posted = [
        {"item_id": NEW[0], "attributes": {"title": "Blue enamel tea pot", "tags": ["blue"], "price": 4.5}},
        {"item_id": NEW[1], "attributes": {"title": "Small ivory lantern", "tags": ["ivory", "gift"]}},
        {"item_id": ids[0], "attributes": {**first, "title": "Red cake stand with three tiers"}},
        {"item_id": ids[1], "attributes": {**second, "price": 99.0}},
        {"item_id": ids[2], "attributes": third, "available": False},
    ]
    ok(client.post("/items", json={"items": posted}))
    ok(client.delete(f"/items/{ids[3]}"))
    events = [
        *({"user_id": "ann", "item_id": item_id, "timestamp": 1.7e9 + n} for n, item_id in enumerate(ids[4:9])),
        {"user_id": "ann", "item_id": NEW[0], "timestamp": 1.7e9 - 5.5, "event_id": "late"},
        *({"user_id": "bob/דב", "item_id": item_id, "timestamp": 1.71e9} for item_id in (ids[10], ids[3], "unknown")),
        {"user_id": "carl", "item_id": ids[11], "timestamp": 1.7e9, "event_id": "once"},
        {"user_id": "gone", "item_id": ids[11], "timestamp": 1.7e9},
    ]
    ok(client.post("/events", json={"events": events}))
    ok(client.delete("/users/gone"))


def answers(client: httpx.Client, ids: list[str]) -> list[dict[str, Any]]:
    """Requests of every kind, and what is answered."""
    kite = {"attributes": {"title": "Wooden kite", "tags": ["red"]}}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/recommend", {"history": ids[20:23], "k": 50}),
        ("/recommend", {"history": [ids[0], ids[30], kite, "unknown"], "explain": True}),
        ("/recommend", {"history": [NEW[0], ids[3]], "exclude_seen": False, "k": 5}),
        ("/recommend", {"history": [], "k": 7}),
        ("/recommend", {"user_id": "ann", "k": 50}),
        ("/recommend", {"user_id": "bob/דב", "history": [ids[15]], "k": 5}),
        (
            "/recommend",
            {"user_id": "carl", "exclude": ids[12:16], "filter": {"price": {"lt": 2}, "tags": ["red", "plain"]}},
        ),
        ("/recommend", {"user_id": "dora", "candidates": [*ids[:8], *NEW]}),
        ("/similar", {"item_id": ids[25], "k": 6}),
        ("/similar", {"item_id": NEW[1], "k": 6}),
        ("/similar", {"attributes": {"title": "Red party bunting"}, "k": 6}),
        ("/recommend/batch", {"requests": [{"history": ids[5:7], "k": 3}, {"user_id": "carl", "k": 3}]}),
    ]
    return [{"path": path, "body": body, "answer": bare(ok(client.post(path, json=body)))} for path, body in requests]


def bare(answer: dict[str, Any]) -> dict[str, Any]:
    """Without the items' attributes, which `items` has."""
    if "answers" in answer:
        return {"answers": [bare(one) for one in answer["answers"]]}
    for item in answer["items"]:
        del item["attributes"]
    return answer


# The program


def environment(shop: Path, **settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEQREC_")}
    return (
        inherited | {"SEQREC_HOME": str(shop / "home"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | settings
    )


def seqrec(shop: Path, *argv: str, **settings: str) -> str:
    """Run a command in the shop's folder; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "seqrec", *argv],
        cwd=shop,
        env=environment(shop, **settings),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"seqrec {' '.join(argv)} failed:\n{done.stderr}")
    return done.stdout


@contextmanager
def service(shop: Path, home: Path | None = None, **settings: str) -> Iterator[httpx.Client]:
    """`seqrec serve` on a free port, with a client; ended in an orderly way, so that SQLite's logs are written back."""
    settings |= {"SEQREC_PORT": "0", **({} if home is None else {"SEQREC_HOME": str(home)})}
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "seqrec", "serve"],
            cwd=shop,
            env=environment(shop, **settings),
            stderr=log,
            stdout=log,
        )
        try:
            while not (found := re.search(r"listening on (http://\S+)", text_of(log))):
                if process.poll() is not None:
                    raise RuntimeError(text_of(log))
                time.sleep(0.05)
            with httpx.Client(base_url=found[1], timeout=60) as client:
                while client.get("/readyz").status_code != 200:
                    time.sleep(0.05)
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def ok(response: httpx.Response) -> Any:
    if response.is_error:
        raise RuntimeError(f"{response.request.url}: {response.text}")
    return response.json()


# The archive


def clean(shop: Path) -> None:
    """What a run leaves for people to look at is not kept: it is large, and nothing reads it."""
    for path in [*shop.rglob("tensorboard"), *shop.rglob("last/checkpoint")]:
        shutil.rmtree(path)
    for pattern in ("curves.png", "*.log", "*.lock", "*.sqlite3-wal", "*.sqlite3-shm"):
        for path in shop.rglob(pattern):
            path.unlink()


def pack(folder: Path, path: Path) -> None:
    """Equal files make equal bytes: sorted, without owners and times."""
    with tarfile.open(path, "w:xz", format=tarfile.PAX_FORMAT, preset=9) as archive:
        for entry in sorted(folder.rglob("*")):
            member = archive.gettarinfo(entry, str(entry.relative_to(folder)))
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if entry.is_dir() else 0o644
            if entry.is_dir():
                archive.addfile(member)
            else:
                with entry.open("rb") as content:
                    archive.addfile(member, content)


if __name__ == "__main__":
    main()
