"""Offers a service four times what it can answer: who is answered, who is refused, and how soon is it over?

    seqrec bench overload                    # 2 x 60 s of overload; about 4 minutes
    seqrec bench overload --floods           # one key's items, batches and reindexes next to another key; 3 minutes
    seqrec bench overload --shadow           # a shadow answers every request as well; 2 minutes

First without API keys: answered requests must keep their deadline, the rest must be refused at once, and right after
the end the service must be as fast as before. Then the same flood by one key, and a modest client with another, all
of whose requests must be answered. Exit code 1 otherwise. Run it alone: the flood is scaled to what the machine can do
at the beginning.

With --floods one key posts items in bulk, asks for batches of 64, or starts one reindex after another, while another
key asks for single recommendations at a low rate. Reported is by how much its p50 and p99 grow, and by how much next
to a busy process with the priority of a reindex, which is what the machine itself does to them. With --shadow the same
requests go to a placement with a shadow of another model, and to one without, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.speed.serve import DATA, World, make_model, read_world
from benchmarks.speed.threads import busy_processes
from benchmarks.tools.http_load import Answers, closed_loop, flooded, open_loop
from benchmarks.tools.service_process import Service, seqrec
from seqrec.runtime.arguments import Parser

FACTOR = 4
CLIENTS = 8
"""At capacity."""
RECOVERED = 0.8
"""Of the capacity, within RECOVERY_SECONDS of the end."""
RECOVERY_SECONDS = 2.0
MODEST_SECONDS = 0.2
"""Between two requests of the modest client."""
DEADLINE = 5.0
AT_ONCE = 0.5
"""Seconds within which 99 of 100 refusals must be there."""
FLOODS = {"items": "/items", "batches": "/recommend/batch", "reindexes": "/reindex"}
FLOOD_CLIENTS = 4
POSTED, BATCHED = 500, 64
"""Items of a POST /items, histories of a POST /recommend/batch."""
PROCESS, JOB_NICE = "a process", 10
MODEST_PER_S = 10.0
MOST_GROWTH = 1.5
"""Of the modest key's p99."""


@dataclass
class Result:
    """Requests a second at capacity before and right after the flood; the answers to the flood and to each key."""

    capacity: float
    flood: Answers
    recovered: float
    greedy: Answers
    modest: Answers

    def broken(self) -> list[str]:
        """What was promised and is not so."""
        broken = []
        if set(self.flood.statuses) - {200, 429}:
            broken.append(f"the flood was answered {dict(self.flood.statuses)}, not 200 or 429")
        if self.flood.percentile(100) > DEADLINE:
            broken.append(f"an answer took {self.flood.percentile(100):.1f} s, past its deadline")
        if self.flood.refusal(99) > AT_ONCE:
            broken.append(f"a refusal took {self.flood.refusal(99):.2f} s")
        if self.recovered < RECOVERED * self.capacity:
            broken.append(f"after the flood {self.recovered:.0f} requests/s, {self.capacity:.0f} before")
        if set(self.modest.statuses) != {200}:
            broken.append(f"the modest client was answered {dict(self.modest.statuses)}")
        return broken


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    if args.floods:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(report_floods(measure_floods(Path(folder), args)))
    if args.shadow:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(report_shadow(*measure_shadow(Path(folder), args)))
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args)
    print(f"{result.capacity:.1f} requests/s with {CLIENTS} clients; {FACTOR} times that for {args.seconds:.0f} s:")
    flood, greedy, modest = result.flood, result.greedy, result.modest
    print(f"  answers      {dict(flood.statuses)}; {flood.statuses[200] / args.seconds:.1f} answered a second")
    print(f"  200          p50 {_ms(flood, 50)}, p99 {_ms(flood, 99)}, longest {_ms(flood, 100)}")
    print(f"  429          p50 {1000 * flood.refusal(50):.0f} ms, p99 {1000 * flood.refusal(99):.0f} ms")
    print(f"  right after  {result.recovered:.1f} requests/s in the first {RECOVERY_SECONDS:.0f} s")
    print("the same by one key, next to a modest client with another:")
    print(f"  greedy       {dict(greedy.statuses)}")
    print(f"  modest       {dict(modest.statuses)}; p50 {_ms(modest, 50)}, p99 {_ms(modest, 99)}")
    for promise in result.broken():
        print(f"broken: {promise}")
    sys.exit(bool(result.broken()))


@dataclass
class Flood:
    """Answers to the modest key while there is a flood, and the statuses of the flood's own requests."""

    modest: Answers = field(default_factory=Answers)
    statuses: Counter[int] = field(default_factory=Counter)


def measure_floods(folder: Path, args: argparse.Namespace) -> dict[str, Flood]:
    """By the name of the flood; "quiet" is without one. They take turns, so that all see the same machine."""
    world = read_world(args)
    home = make_home(folder, world, args)
    histories = _histories(world)
    recommendations = [_recommendation(next(histories)) for _ in range(5000)]
    bodies = {
        "items": [_posted(world, number) for number in range(64)],
        "batches": [
            json.dumps({"requests": [{"history": next(histories)[-50:], "k": 10} for _ in range(BATCHED)]}).encode()
            for _ in range(256)
        ],
        "reindexes": [b""],
    }
    service = Service(home, folder / "service.log", threads=str(args.threads), deadline=str(DEADLINE))
    greedy = _make_key(home, "greedy", "recommend", "write", "admin")
    modest = _make_key(home, "modest", "recommend")
    url = service.start().url
    found = {name: Flood() for name in ("quiet", *FLOODS, PROCESS)}

    def ask(of: Flood, seed: int) -> None:
        asked = recommendations[seed * 100 % 5000 :] + recommendations
        answers = open_loop(url, "/recommend", asked, MODEST_PER_S, args.flood_seconds, seed, modest)
        of.modest.seconds += answers.seconds
        of.modest.statuses += answers.statuses

    try:
        closed_loop(url, "/recommend", recommendations[:200], 1, modest)
        for number in range(args.rounds):
            for turn, (name, path) in enumerate(FLOODS.items()):
                seed = 2 * (number * len(FLOODS) + turn)
                ask(found["quiet"], seed)
                with flooded(url, path, bodies[name], FLOOD_CLIENTS, greedy) as statuses:
                    time.sleep(1)  # until it is at full speed
                    ask(found[name], seed + 1)
                found[name].statuses += statuses
                _until_no_job_runs(url, greedy)
            with busy_processes(1, JOB_NICE):
                ask(found[PROCESS], 2 * (number + 1) * len(FLOODS))
    finally:
        service.kill()
    return found


def report_floods(found: dict[str, Flood]) -> bool:
    """Whether something that was promised is not so."""
    quiet = found["quiet"].modest
    broken = [
        f"{name}: {dict(one.modest.statuses)}" for name, one in found.items() if set(one.modest.statuses) != {200}
    ]
    print(f"a modest key, {MODEST_PER_S:.0f} requests/s, next to a flood by another key with {FLOOD_CLIENTS} clients:")
    for name, one in found.items():
        p50, p99 = (one.modest.percentile(percent) / quiet.percentile(percent) for percent in (50, 99))
        print(
            f"  {name:<10} p50 {_ms(one.modest, 50)}, x{p50:.2f}; p99 {_ms(one.modest, 99)}, x{p99:.2f}; "
            f"{len(one.modest.seconds)} answers; the flood {dict(one.statuses)}"
        )
        if p99 > MOST_GROWTH and name != PROCESS:
            broken.append(f"{name} move the other key's p99 by x{p99:.2f}, above x{MOST_GROWTH}")
    for promise in broken:
        print(f"broken: {promise}")
    return bool(broken)


def measure_shadow(folder: Path, args: argparse.Namespace) -> tuple[dict[str, Answers], list[dict[str, Any]]]:
    """The answers of a placement without and of one with a shadow, and what the service reports of the shadow."""
    world = read_world(args)
    home = make_home(folder, world, args)
    args.seed += 1
    other = make_model(folder / "other", world, args)
    made = seqrec(home, "reindex", "--no-publish", "--force", "--checkpoint", str(other), "--json")
    rules = {
        "plain": {"k": 10},
        "shadowed": {"k": 10, "shadow": {"snapshot": json.loads(made)["snapshot"], "share": 1}},
    }
    service = Service(home, folder / "service.log", threads=str(args.threads), deadline=str(DEADLINE))
    url = service.start(allow_anonymous="true").url
    histories = _histories(world)
    found = {name: Answers() for name in rules}

    def ask(name: str, count: int, seed: int) -> Answers:
        bodies = [
            json.dumps({"history": next(histories)[-50:], "k": 10, "placement": name}).encode() for _ in range(count)
        ]
        return open_loop(url, "/recommend", bodies, MODEST_PER_S, count / MODEST_PER_S, seed)

    try:
        for name, one in rules.items():
            service.request("PUT", f"/placements/{name}", one).raise_for_status()
        while service.request("GET", "/readyz").json()["degraded"] or not _shadows(service, "compared"):
            ask("shadowed", 5, 0)
        for number in range(2 * args.rounds):
            for name in list(rules)[:: 1 if number % 2 else -1]:
                answers = ask(name, round(MODEST_PER_S * args.flood_seconds), number)
                found[name].seconds += answers.seconds
                found[name].statuses += answers.statuses
                time.sleep(1)  # the shadow ends what it has begun
        return found, _shadows(service)
    finally:
        service.kill()


def _shadows(service: Service, *positive: str) -> list[dict[str, Any]]:
    shadows = service.request("GET", "/reports").json()["shadows"]
    return [one for one in shadows if all(one[name] for name in positive)]


def report_shadow(found: dict[str, Answers], shadows: list[dict[str, Any]]) -> bool:
    """Whether a request was not answered."""
    plain = found["plain"]
    for name, one in found.items():
        p50, p99 = (one.percentile(percent) / plain.percentile(percent) for percent in (50, 99))
        print(f"  {name:<10} p50 {_ms(one, 50)}, x{p50:.2f}; p99 {_ms(one, 99)}, x{p99:.2f}; {dict(one.statuses)}")
    print(f"  the shadow: {json.dumps(shadows)}")
    return any(set(one.statuses) != {200} for one in found.values())


def _posted(world: World, number: int) -> bytes:
    """Known items whose texts have changed, so that they are encoded."""
    items = [world.items[(number * POSTED + row) % len(world.items)] for row in range(POSTED)]
    changed = [
        {"item_id": item.item_id, "attributes": {**item.attributes, "title": f"{item.attributes['title']} {number}"}}
        for item in items
    ]
    return json.dumps({"items": changed}).encode()


def _make_key(home: Path, name: str, *scopes: str) -> str:
    wanted = [part for scope in scopes for part in ("--scope", scope)]
    return str(json.loads(seqrec(home, "keys", "create", name, *wanted, "--json"))["key"])


def _until_no_job_runs(url: str, key: str) -> None:
    """What a flood started, a reindex, must not be measured as quiet."""
    running = True
    while running:
        time.sleep(0.5)
        jobs = httpx.get(f"{url}/reindex", headers={"authorization": f"Bearer {key}"}).json()["jobs"]
        running = any(job["state"] in ("queued", "running") for job in jobs)
    time.sleep(1)  # its snapshot is loaded


def make_home(folder: Path, world: World, args: argparse.Namespace) -> Path:
    """A published snapshot of the items, by a model of random weights."""
    home = folder / "home"
    checkpoint = make_model(folder / "checkpoint", world, args)
    items = folder / "items.jsonl"
    lines = [json.dumps({"item_id": item.item_id, "attributes": dict(item.attributes)}) for item in world.items]
    items.write_text("\n".join(lines) + "\n", encoding="utf-8")
    seqrec(home, "index", "build", "--checkpoint", str(checkpoint), "--items", str(items), "--publish")
    return home


def _histories(world: World) -> Iterator[list[str]]:
    """Each is another one, so that no vector is cached: a walk over all customers, one item less each round."""
    longest = max(map(len, world.histories))
    histories = (history[: len(history) - cut] for cut in range(longest) for history in world.histories)
    return filter(None, histories)


def _recommendation(history: Sequence[str]) -> bytes:
    return json.dumps({"history": history[-50:], "k": 10}).encode()


def measure(folder: Path, args: argparse.Namespace) -> Result:
    world = read_world(args)
    home = make_home(folder, world, args)
    bodies = map(_recommendation, _histories(world))

    def take(count: float) -> list[bytes]:
        return list(itertools.islice(bodies, max(1, round(count))))

    service = Service(home, folder / "service.log", threads=str(args.threads), deadline=str(DEADLINE))
    url = service.start(allow_anonymous="true").url
    try:
        capacity = closed_loop(url, "/recommend", take(args.requests), CLIENTS).per_s
        count = FACTOR * capacity * args.seconds
        flood = open_loop(url, "/recommend", take(count), FACTOR * capacity, args.seconds)
        after = closed_loop(url, "/recommend", take(RECOVERY_SECONDS * capacity), CLIENTS)
        keys = [_make_key(home, name, "recommend") for name in ("greedy", "modest")]
        while closed_loop(url, "/recommend", take(1), 1, key=keys[1]).statuses[200] == 0:
            time.sleep(0.1)  # until the service has heard of the keys
        greedy: list[Answers] = []
        load = (url, "/recommend", take(count), FACTOR * capacity, args.seconds)
        thread = threading.Thread(target=lambda: greedy.append(open_loop(*load, key=keys[0])))
        thread.start()
        modest = Answers()
        end = time.monotonic() + args.seconds
        while time.monotonic() < end:
            one = closed_loop(url, "/recommend", take(1), 1, key=keys[1])
            modest.seconds += one.seconds
            modest.statuses += one.statuses
            time.sleep(MODEST_SECONDS)
        thread.join()
    finally:
        service.kill()
    return Result(capacity, flood, after.per_s, greedy[0], modest)


def _ms(answers: Answers, percent: float) -> str:
    return f"{1000 * answers.percentile(percent):.0f} ms"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench overload", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz", help="JSON Lines")
    parser.add_argument("--interactions", type=Path, default=DATA / "interactions.csv.gz", help="CSV or Parquet")
    parser.add_argument(
        "--attributes", default="title,brand,category", help="attributes to read as text, in this order"
    )
    parser.add_argument("--layers", type=int, default=2, help="of a Recformer of random weights")
    parser.add_argument("--hidden", type=int, default=128, help="a multiple of 32, the size of a head")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, default=1000, help="to measure the capacity")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each flood")
    parser.add_argument("--floods", action="store_true", help="other floods instead, of one key next to another")
    parser.add_argument("--shadow", action="store_true", help="measure what a shadow costs the answers instead")
    parser.add_argument("--rounds", type=int, default=3, help="of these; with --shadow twice as many")
    parser.add_argument("--flood-seconds", type=float, default=6.0, help="of each turn of these")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
