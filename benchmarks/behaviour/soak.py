"""Random kills under load. Everything that was acknowledged is recorded, and anything that is lost is reported.

    seqrec bench soak                    # 120 kills on SQLite, 80 on Redis; 15 to 30 minutes
    seqrec bench soak --sqlite 10 --redis 10 --seed 7

Clients write, change and delete items and post events, while snapshots are made. At random moments SIGKILL is sent to
the whole service, to one of its workers, to the reindex job, or to the Redis server. After each kill everything is
started again and compared with what was acknowledged. Exit code 1 at the first difference.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from benchmarks.behaviour.soak_load import Load, Wrong, check
from benchmarks.tools.redis_server import RedisServer
from benchmarks.tools.service_process import START_SECONDS, Service, make_checkpoint, seqrec
from seqrec.runtime.arguments import Parser

ITEMS = 30
"""In the catalogue at first."""


def _told(log: str) -> str:
    """The end of a log, and the last exception in it."""
    begin = log.rfind("Traceback")
    return ("" if begin < 0 else f"{log[begin : begin + 6000]}\n...\n") + log[-1000:]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table. Exit code 1 if an acknowledged write was lost or anything else is wrong."""
    parser = Parser(prog="seqrec bench soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--sqlite", type=int, default=120, metavar="N", help="kills on SQLite")
    parser.add_argument("--redis", type=int, default=80, metavar="N", help="kills on Redis")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the random choices")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # processes and files are removed in any case
    print(f"seed {options.seed}", flush=True)
    tables = []
    try:
        for store, kills in (("sqlite", options.sqlite), ("redis", options.redis)):
            if kills:
                with tempfile.TemporaryDirectory() as folder:
                    tables.append(
                        (
                            store,
                            soak(
                                Path(folder),
                                store == "redis",
                                kills,
                                options.seed,
                                lambda line: print(line, flush=True),
                            ),
                        )
                    )
    except Wrong as error:
        sys.exit(f"WRONG: {error}")
    names = list(dict.fromkeys(name for _, counts in tables for name in counts))
    print(f"\n{'':34}" + "".join(f"{store:>10}" for store, _ in tables))
    for name in names:
        print(f"{name:34}" + "".join(f"{counts[name]:>10}" for _, counts in tables))
    print("nothing acknowledged was lost, no number was used twice, every snapshot was whole")


def soak(
    folder: Path, on_redis: bool, kills: int, seed: int, say: Callable[[str], object] = lambda line: None
) -> Counter[str]:
    """Kill `kills` times. -> counts of what happened. Raises Wrong."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    server = RedisServer(folder / "redis") if on_redis else None
    redis_url = None if server is None else server.url
    home = folder / "home"
    service = Service(home, folder / "service.log", redis_url=redis_url, follow_seconds="0.05")
    items = {f"first-{n}": f"first thing number{n}" for n in range(ITEMS)}
    load = Load(items, chance.randrange(2**32))
    with ExitStack() as stack:
        if server is not None:
            server.start()
            stack.callback(server.kill)
        _build(folder, home, items, redis_url)
        stack.callback(_end_jobs, home)
        stack.callback(service.kill)
        stack.callback(load.stop)
        workers = chance.choice([1, 2])
        service.start(workers=str(workers))
        for number in range(1, kills + 1):
            load.start(service.url)
            load.until(chance.randrange(20), most=10.0)
            time.sleep(chance.uniform(0, 0.05))
            victim, begin = _kill(chance, service, server, workers), time.monotonic()
            counts[f"kills of {victim}"] += 1
            time.sleep(chance.uniform(0, 0.3))  # what still runs continues meanwhile
            if victim == "the Redis server":
                assert server is not None
                server.start()
                time.sleep(chance.uniform(0, 0.3))
            load.stop()
            if victim == "the service":
                workers = chance.choice([1, 2])
                service.start(workers=str(workers))
            service.until_ready(time.monotonic() + START_SECONDS)
            longest = max(counts["longest until ready, ms"], int(1000 * (time.monotonic() - begin)))
            counts["longest until ready, ms"] = longest
            try:
                check(load, service.url, home, redis_url)
            except Wrong as error:
                raise Wrong(f"{error}\nafter kill {number} ({victim})\n{_told(service.log.read_text())}") from error
            say(f"kill {number:>3}: {victim:16} {load.counts['acknowledged writes']:>6} writes acknowledged so far")
    return counts + load.counts


def _build(folder: Path, home: Path, items: dict[str, str], redis_url: str | None) -> None:
    checkpoint = make_checkpoint(folder / "checkpoint", dim=16)
    records = [json.dumps({"item_id": item_id, "attributes": {"title": title}}) for item_id, title in items.items()]
    (folder / "items.jsonl").write_text("\n".join(records), encoding="utf-8")
    data = ("--items", str(folder / "items.jsonl"))
    seqrec(home, "index", "build", "--checkpoint", str(checkpoint), *data, "--publish", redis_url=redis_url)


def _kill(chance: random.Random, service: Service, server: RedisServer | None, workers: int) -> str:
    """Send SIGKILL to a random victim. -> the victim."""
    jobs = [child for child in psutil.Process(service.process.pid).children(recursive=True) if _is_job(child)]
    victims = ["the service"] * 3
    victims += ["a worker"] * 2 if workers > 1 else []
    victims += ["a job"] * 2 if jobs else []
    victims += ["the Redis server"] * 5 if server is not None else []
    victim = chance.choice(victims)
    if victim == "the Redis server":
        assert server is not None
        server.kill()
    elif victim == "a job":
        with suppress(psutil.NoSuchProcess):
            chance.choice(jobs).kill()
    elif victim == "a worker":
        with suppress(ProcessLookupError):
            os.kill(chance.choice(service.workers()), signal.SIGKILL)
    else:
        service.kill()
    return victim


def _is_job(process: psutil.Process) -> bool:
    try:
        return "reindex" in process.cmdline()
    except psutil.Error:
        return False


def _end_jobs(home: Path) -> None:
    """Jobs survive the death of their service."""
    for path in (home / "jobs").glob("*.json"):
        with suppress(psutil.Error, ValueError):
            process = psutil.Process(json.loads(path.read_text(encoding="utf-8")).get("process"))
            if path.stem in " ".join(process.cmdline()):
                process.kill()
                process.wait(10)


if __name__ == "__main__":
    main()
