"""Requests of concurrent clients while snapshots are made, published and swapped, one of them with another model.

    seqrec bench swap                            # 10,000 requests, 20 swaps and a model change; about 3 minutes
    seqrec bench swap --checkpoint var/demo/checkpoint --workers 2

Answers are compared with a brute-force ranking by the model that they name. A request is *during a swap* if it overlaps
the time from a publication until the last answer from the previous snapshot, or the first from the new one. Exit code 1
for a failed request, for an answer that mixes two snapshots, or if the 99th percentile during swaps is more than twice
that of all other requests.
"""

from __future__ import annotations

import csv
import http.client
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.tools.service_process import Service, environment, make_checkpoint, seqrec
from index.catalogue.open import open_catalogue
from index.snapshot.snapshot import SnapshotStore
from seqrec.data.items import Item, read_items
from seqrec.encoder import load_model
from seqrec.metric import Metric
from seqrec.runtime.arguments import Parser

DATA = Path(__file__).parents[2] / "data" / "online-retail"
K = 10
QUERIES = 50
POPULAR_EVERY = 4  # one request in so many is for the most popular items


@dataclass(frozen=True)
class Sent:
    """One request. Times are of time.time(), as are those of publications."""

    begin: float
    end: float
    query: int  # -1: the most popular items
    status: int
    body: bytes


@dataclass
class Result:
    failures: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    swaps: int = 0
    during: list[float] = field(default_factory=list)  # seconds
    reindexing: list[float] = field(default_factory=list)  # while a snapshot is made, not swapped
    quiet: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The 99th percentile during swaps, relative to that of all other requests."""
        return percentile(self.during, 99) / percentile(self.reindexing + self.quiet, 99)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="seqrec bench swap", description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--swaps", type=int, default=20, help="number of swaps; one more changes the model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between a swap and the next reindex")
    parser.add_argument("--checkpoint", type=Path, help="default: a model without weights")
    parser.add_argument("--other", type=Path, help="the model after the change; default: one without weights")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        first = options.checkpoint or make_checkpoint(Path(folder) / "first", dim=64)
        other = options.other or make_checkpoint(Path(folder) / "other", dim=96)
        result = measure(
            Path(folder),
            (first, other),
            read_items(DATA / "items.jsonl.gz"),
            options.requests,
            options.swaps,
            options.clients,
            options.workers,
            options.pause,
        )
    print(f"{options.clients} clients, {options.workers} workers, {result.swaps} swaps (one to another model)")
    print(f"{'':24}{'requests':>10}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    for name in ("quiet", "reindexing", "during"):
        seconds = getattr(result, name)
        row = [percentile(seconds, 50), percentile(seconds, 99), percentile(seconds, 100)]
        print(f"{name:24}{len(seconds):>10}" + "".join(f"{1000 * value:>10.1f}" for value in row))
    print(f"failed: {len(result.failures)}, mixed: {len(result.mixed)}, p99 during / outside: {result.ratio:.2f}")
    for line in [*result.failures[:5], *result.mixed[:5]]:
        print(line)
    sys.exit(1 if result.failures or result.mixed or result.ratio > 2 else 0)


def percentile(seconds: Sequence[float], percent: float) -> float:
    return float(np.percentile(seconds, percent)) if seconds else float("nan")


def measure(
    folder: Path,
    checkpoints: tuple[Path, Path],
    items: Sequence[Item],
    requests: int,
    swaps: int,
    clients: int,
    workers: int,
    pause: float,
    nice: int = 10,
) -> Result:
    """At least `requests` requests across `swaps` swaps and one to the second checkpoint; reindexes run with `nice`."""
    home = folder / "home"
    chance = random.Random(0)
    titles = [str(item.attributes["title"]) for item in items if item.attributes.get("title")]
    queries = [[{"title": title} for title in chance.sample(titles, 3)] for _ in range(QUERIES)]
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"item_id": i.item_id, "attributes": dict(i.attributes)}) + "\n" for i in items)
    popular = [item.item_id for item in items[:K]]
    _interactions(folder / "interactions-0.csv", popular, 0)
    data = ("--items", str(folder / "items.jsonl"), "--interactions", str(folder / "interactions-0.csv"))
    seqrec(home, "index", "build", "--checkpoint", str(checkpoints[0]), *data, "--publish")
    numbers = {SnapshotStore(home).list()[0]: 0}
    service = Service(home, folder / "service.log", workers=str(workers)).start()
    sent: list[Sent] = []
    ended = threading.Event()
    threads = [
        threading.Thread(target=_client, args=(service.url, queries, number, sent, ended)) for number in range(clients)
    ]
    making: list[tuple[float, float]] = []
    try:
        for thread in threads:
            thread.start()
        time.sleep(pause)
        for number in range(1, swaps + 2):
            counted = folder / f"interactions-{number}.csv"
            _interactions(counted, popular, number)
            model = checkpoints[1] if number == swaps // 2 + 1 else None
            begin = time.time()
            numbers[_reindex(home, counted, model, nice)] = number
            making.append((begin, time.time()))
            time.sleep(pause)
        while len(sent) < requests and any(thread.is_alive() for thread in threads):
            time.sleep(0.1)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        service.kill()
    with closing(open_catalogue(home)) as catalogue:
        published = {change.snapshot_id or "": change.time for change in catalogue.publications()}
    checker = _Checker(checkpoints, items, queries, numbers, popular)
    return _judged(sent, making, published, checker)


def _interactions(path: Path, popular: Sequence[str], number: int) -> None:
    """The i-th popular item has 10 * (number * 10 + len(popular) - i) events, so counts differ between snapshots."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp"])
        for place, item_id in enumerate(popular):
            writer.writerows([f"u{n}", item_id, n] for n in range(_count(number, place)))


def _count(number: int, place: int) -> int:
    return (number + 1) * 20 - place


def _reindex(home: Path, interactions: Path, checkpoint: Path | None, nice: int) -> str:
    """In a separate process, as the service starts it. -> the snapshot that it published."""
    command = [sys.executable, "-m", "seqrec", "reindex", "--json", "--interactions", str(interactions)]
    command += ["--checkpoint", str(checkpoint)] if checkpoint else []
    with subprocess.Popen(command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as job:
        os.setpriority(os.PRIO_PROCESS, job.pid, nice)
        assert job.stdout is not None
        snapshot: str = json.load(job.stdout)["snapshot"]
    return snapshot


def _client(
    url: str, queries: Sequence[Sequence[dict[str, str]]], number: int, sent: list[Sent], ended: threading.Event
) -> None:
    """Deliberately cheap, since processor time of the client is lost to the service."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    bodies = [json.dumps({"history": [{"attributes": of} for of in query], "k": K}).encode() for query in queries]
    popular = json.dumps({"history": [], "k": K}).encode()
    for turn in itertools.count(number):
        if ended.is_set():
            break
        query = -1 if turn % POPULAR_EVERY == 0 else turn % len(queries)
        begin = time.time()
        try:
            connection.request(
                "POST", "/recommend", popular if query < 0 else bodies[query], {"content-type": "application/json"}
            )
            reply = connection.getresponse()
            body = reply.read()
            sent.append(Sent(begin, time.time(), query, reply.status, body))
        except (OSError, http.client.HTTPException) as error:
            sent.append(Sent(begin, time.time(), query, 0, repr(error).encode()))
            connection.close()
        ended.wait(0.02)
    connection.close()


class _Checker:
    """The expected answers, by the snapshot and the model that an answer names."""

    def __init__(
        self,
        checkpoints: Sequence[Path],
        items: Sequence[Item],
        queries: Sequence[Any],
        numbers: dict[str, int],
        popular: Sequence[str],
    ) -> None:
        self._numbers, self._popular = numbers, popular
        self._scores: dict[str, Any] = {}  # by model: [queries, items]
        self._row = {item.item_id: row for row, item in enumerate(items)}
        for checkpoint in checkpoints:
            encoder = load_model(checkpoint, "cpu")
            vectors = encoder.encode_items([item.attributes for item in items])
            scores = Metric(encoder.metric).scores(encoder.encode_histories(queries), vectors)
            self._scores[encoder.checkpoint.digest] = scores

    def wrong(self, query: int, answer: dict[str, Any]) -> str | None:
        """What is wrong with an answer; None if it is right."""
        number = self._numbers.get(answer["snapshot"])
        got = [(item["item_id"], item["score"]) for item in answer["items"]]
        if number is None:
            return f"unknown snapshot {answer['snapshot']}"
        if query < 0:
            # Popularity is counted from the log of events, whichever snapshot answers.
            popular = {item_id for item_id, _ in got} == set(self._popular)
            return None if popular else f"popular items of snapshot {number}: {got}"
        scores = self._scores[answer["model"]][query]
        best = np.sort(scores)[::-1][:K]
        found = scores[[self._row[item_id] for item_id, _ in got]]
        scored = np.array([score for _, score in got])
        if len(got) == K and np.allclose(scored, best, atol=1e-4) and np.allclose(scored, found, atol=1e-4):
            return None
        return f"query {query} by {answer['model'][:12]}: {got}"


def _judged(
    sent: Sequence[Sent], making: Sequence[tuple[float, float]], published: dict[str, float], checker: _Checker
) -> Result:
    result = Result(swaps=len(published) - 1)
    answers = []
    for one in sent:
        if one.status != 200:
            result.failures.append(f"{one.status} {one.body[:300]!r}")
            continue
        answer = json.loads(one.body)
        if reason := checker.wrong(one.query, answer):
            result.mixed.append(reason)
        answers.append((one, answer["snapshot"]))
    order = sorted(published, key=published.__getitem__)
    windows = []
    for before, after in itertools.pairwise(order):
        old = [one.end for one, snapshot in answers if snapshot == before and one.end > published[after]]
        new = [one.end for one, snapshot in answers if snapshot == after]
        windows.append((published[after], max(old + ([min(new)] if new else []), default=published[after])))
    for one, _ in answers:
        seconds = one.end - one.begin
        if any(one.begin <= end and one.end >= begin for begin, end in windows):
            result.during.append(seconds)
        elif any(one.begin <= end and one.end >= begin for begin, end in making):
            result.reindexing.append(seconds)
        else:
            result.quiet.append(seconds)
    return result


if __name__ == "__main__":
    main()
