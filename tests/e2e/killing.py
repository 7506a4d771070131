"""Processes that are killed at one exact step of what they do: python killing.py, orders on stdin, one JSON a line.

Everything is imported once. Each order forks a child that carries it out and counts its *steps*: before and after each
sync, rename and removal, before each file that is opened for writing and each directory, before and after each SQL
statement that writes, before a command goes to Redis, after that, and after its answer. At step `at` a SIGKILL goes to
the child itself, or to `victim` (a Redis server). So every step is met, none by luck.

An order: {"do": name, "at": a number, or part of a step's name: the first such step; 0: never, "victim": pid or null,
...}; the answer: {"killed", "steps", "step" (its
name), "result" (None where it was killed), "error"}. `pause` stops the child before it begins, until SIGCONT.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import re
import signal
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import redis.connection

from index.build.reindex import Request, make_snapshot
from index.catalogue.histories import Event
from index.catalogue.open import open_catalogue, open_histories
from index.snapshot.publication import prune, publish, rollback
from retraining.retrain import Options, retrain
from seqrec.data.items import Item
from seqrec.encoder import load_model
from seqrec.errors import CatalogueError, SeqrecError
from service.app import create_app
from service.settings import Settings
from tests.e2e.ready import Client, until_served

_WRITES = re.compile(r"\s*(BEGIN IMMEDIATE|INSERT|UPDATE|DELETE|REPLACE|CREATE|COMMIT)", re.IGNORECASE)


class Steps:
    """Counts, and kills at the right one. From several threads."""

    def __init__(self, at: int | str, victim: int | None, report: int) -> None:
        self._at, self._victim, self._report = at, victim, report
        self.counting = False
        self._count = 0
        self._lock = threading.Lock()

    def step(self, name: str) -> None:
        with self._lock:
            if not self.counting:
                return
            self._count += 1
            os.write(self._report, f"{json.dumps({'steps': self._count, 'step': name})}\n".encode())
            if self._at in name if isinstance(self._at, str) else self._count == self._at:
                os.kill(self._victim or os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def stepped(*arguments: Any, **options: Any) -> Any:
            what = f"{name}({', '.join(_short(argument) for argument in arguments[:2])})"
            self.step(f"before {what}")
            try:
                return function(*arguments, **options)
            finally:
                self.step(f"after {what}")

        setattr(owner, name, stepped)

    def before_opening(self, owner: Any) -> None:
        function = owner.open

        def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if set(mode) & set("wax+"):
                self.step(f"before open({_short(file)}, {mode})")
            return function(file, mode, *arguments, **options)

        owner.open = opened

    def install(self) -> None:
        for name in ("fsync", "rename", "replace", "unlink", "mkdir", "rmdir"):
            self.around(os, name)
        self.before_opening(io)
        self.before_opening(builtins)
        steps = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                if not _WRITES.match(sql):
                    return super().execute(sql, *arguments)
                steps.step(f"before {sql[:40]}")
                try:
                    return super().execute(sql, *arguments)
                finally:
                    steps.step(f"after {sql[:40]}")

        connect = sqlite3.connect
        sqlite3.connect = lambda *a, **o: connect(*a, **o, factory=Connection)  # type: ignore[assignment, misc]
        self.around(redis.connection.AbstractConnection, "send_packed_command")
        read = redis.connection.AbstractConnection.read_response

        def read_response(*arguments: Any, **options: Any) -> Any:
            answer = read(*arguments, **options)
            self.step("after an answer of the server")
            return answer

        redis.connection.AbstractConnection.read_response = read_response


def _short(argument: object) -> str:
    return argument.name if isinstance(argument, Path) else str(argument)[-60:] if isinstance(argument, str) else ""


def _location(order: dict[str, Any]) -> Path | str:
    return order["redis_url"] or Path(order["home"])


# The tasks of a child process.


def put(order: dict[str, Any]) -> Any:
    from index.build.import_items import import_items

    encoder = load_model(Path(order["checkpoint"]), "cpu")
    with closing(open_catalogue(_location(order))) as catalogue:
        yield
        import_items(catalogue, encoder, [Item(i, a) for i, a in order["items"].items()])
        return catalogue.head()


def delete(order: dict[str, Any]) -> Any:
    with closing(open_catalogue(_location(order))) as catalogue:
        yield
        return catalogue.delete(order["item_ids"])


def have(order: dict[str, Any]) -> Any:
    with closing(open_histories(_location(order))) as histories:
        yield
        return histories.add([Event(*event) for event in order["events"]])


def forget(order: dict[str, Any]) -> Any:
    with closing(open_histories(_location(order))) as histories:
        yield
        return histories.delete(order["user_id"])


def reindex(order: dict[str, Any]) -> Any:
    yield
    request = Request(checkpoint=Path(order["checkpoint"]), keep=2, publish=order.get("publish", True), force=True)
    return make_snapshot(Path(order["home"]), request, location=_location(order)).manifest.snapshot_id


def go_back(order: dict[str, Any]) -> Any:
    with closing(open_catalogue(_location(order))) as catalogue:
        yield
        return rollback(Path(order["home"]), catalogue)


def publish_one(order: dict[str, Any]) -> Any:
    with closing(open_catalogue(_location(order))) as catalogue:
        yield
        return publish(Path(order["home"]), catalogue, order["snapshot"])


def compact(order: dict[str, Any]) -> Any:
    with closing(open_catalogue(_location(order))) as catalogue:
        yield
        prune(Path(order["home"]), catalogue, keep=1)
        return None


def swap(order: dict[str, Any]) -> Any:
    """A service that is ready finds another published snapshot, swaps, and is posted an item."""
    settings = Settings(home=Path(order["home"]), redis_url=order["redis_url"], follow_seconds=0.01, deadline=60)
    with Client(create_app(settings)) as client:
        until_served(client, None)
        yield
        with closing(open_catalogue(_location(order))) as catalogue:
            publish(Path(order["home"]), catalogue, order["snapshot"])
        until_served(client, order["snapshot"])
        items = [{"item_id": item_id, "attributes": of} for item_id, of in order["items"].items()]
        reply = client.post("/items", json={"items": items})
        if reply.status_code == 503:
            raise CatalogueError(reply.text)
        assert reply.status_code == 200, reply.text
        return reply.json()["seq"]


def retrain_served(order: dict[str, Any]) -> Any:
    yield
    return retrain(Path(order["home"]), _location(order), Options(force=True)).result


DO: dict[str, Callable[[dict[str, Any]], Any]] = {
    "put": put,
    "delete": delete,
    "have": have,
    "forget": forget,
    "reindex": reindex,
    "rollback": go_back,
    "publish": publish_one,
    "compact": compact,
    "swap": swap,
    "retrain": retrain_served,
}


def _child(order: dict[str, Any], report: int) -> None:
    """What comes before the first yield of the work is no step of it."""
    steps = Steps(order["at"], order.get("victim"), report)
    steps.install()
    work = DO[order["do"]](order)
    next(work)
    if order.get("pause"):
        os.kill(os.getpid(), signal.SIGSTOP)
    steps.counting = True
    try:
        next(work)
    except StopIteration as done:
        os.write(report, f"{json.dumps({'result': done.value, 'done': True})}\n".encode())
    except SeqrecError as error:
        os.write(report, f"{json.dumps({'error': f'{type(error).__name__}: {error}'})}\n".encode())


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            status = 1
            try:
                _child(order, writing)
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        os.close(writing)
        if order.get("pause"):
            os.waitpid(process, os.WUNTRACED)  # until it has stopped
            print(json.dumps({"process": process}), flush=True)
        answer: dict[str, Any] = {"steps": 0, "step": None, "result": None, "done": False, "error": None}
        with os.fdopen(reading) as output:
            for said in output:
                answer |= json.loads(said)
        _, status = os.waitpid(process, 0)
        answer["killed"] = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        answer["status"] = status
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
