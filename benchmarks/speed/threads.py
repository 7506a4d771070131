"""Slowdown of a forward pass and of /recommend over HTTP by other busy processes, one per core.

    seqrec bench threads                         # 2 minutes

Two processes that each want all cores get half of them, so twice the time is the optimum. Threads that spin while they
wait for each other are much slower, because the thread that they wait for has no core; they are measured for contrast.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.speed.serve import DATA, World, make_model
from benchmarks.tools.http_load import closed_loop
from benchmarks.tools.report import Line, Report, Spread, add_output, log
from benchmarks.tools.service_process import Service
from benchmarks.tools.synthetic import item, make_home
from seqrec.data.items import read_items
from seqrec.runtime.arguments import Parser
from seqrec.runtime.threads import SPINS, choose, cores, variables

POLICIES = {"PASSIVE": "ours: waiting threads sleep", "ACTIVE": "for contrast: waiting threads spin"}
CATALOGUE, HISTORY = 1000, 30
"""The number of items in the catalogue, and in each history."""

Timed = Callable[[float], list[float]]
"""The seconds to work for -> the seconds of each piece of work."""


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    title = f"{cores()} busy processes on {cores()} cores: Recformer {args.layers} x {args.hidden}, "
    report = Report("threads", title + f"{args.threads} threads", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-threads-") as name:
        folder = Path(name)
        checkpoint = make_model(folder / "model", World(read_items(args.items), []), args)
        for policy, said in POLICIES.items():
            with forwards(checkpoint, policy, args) as timed:
                add_lines(report, f"forward of {args.tokens} tokens", said, alternately(timed, args))
        home = make_home(folder / "home", checkpoint, CATALOGUE)
        with requests(home, folder / "log", args) as timed:
            add_lines(report, f"/recommend, {HISTORY} items", POLICIES["PASSIVE"], alternately(timed, args))
    report.finish(args.json, args.picture)


def add_lines(report: Report, part: str, name: str, rounds: Sequence[tuple[list[float], list[float]]]) -> None:
    """`rounds`: seconds of each piece of work, alone and with busy processes."""
    alone, busy = ([1000 * median(of[side]) for of in rounds] for side in (0, 1))
    worst = 1000 * max(max(of[1]) for of in rounds)
    ratio = Spread.of([slow / fast for slow, fast in zip(busy, alone, strict=True)])
    report.add(Line(part, f"{name}, alone", median(alone), "ms"))
    report.add(Line(part, f"{name}, with busy processes", median(busy), "ms", ratio, "alone"))
    report.notes.append(f"{part}, {name}: the slowest with busy processes took {worst:,.0f} ms")


def alternately(timed: Timed, args: argparse.Namespace) -> list[tuple[list[float], list[float]]]:
    """In each round: alone, then with one busy process per core."""
    rounds = []
    for number in range(args.rounds):
        alone = timed(args.seconds)
        with busy_processes(cores()):
            busy = timed(args.seconds)
        rounds.append((alone, busy))
        ratio = median(busy) / median(alone)
        log(f"round {number + 1} of {args.rounds}: {ratio:.1f} times as slow")
    return rounds


@contextmanager
def busy_processes(count: int, nice: int = 0) -> Iterator[None]:
    """`count` processes that compute without end."""
    endless = f"import os; os.nice({nice})\nwhile True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", endless]) for _ in range(count)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def forwards(checkpoint: Path, policy: str, args: argparse.Namespace) -> Iterator[Timed]:
    """A process that encodes. Only one exists at a time, because spinning threads also spin between forwards."""
    waiting = {"OMP_WAIT_POLICY": policy, "GOMP_SPINCOUNT": str(SPINS) if policy == "PASSIVE" else "infinite"}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.tools.forward_process", str(checkpoint), str(args.tokens)],
        env=os.environ | variables(args.threads) | waiting | {"CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def timed(seconds: float) -> list[float]:
        assert process.stdin is not None
        assert process.stdout is not None
        print(seconds, file=process.stdin, flush=True)
        took: list[float] = json.loads(process.stdout.readline())
        return took

    try:
        yield timed
    finally:
        process.kill()
        process.communicate()


@contextmanager
def requests(home: Path, log: Path, args: argparse.Namespace) -> Iterator[Timed]:
    """A client that sends one request after another to a service, each with a different history."""
    service = Service(home, log, threads=str(args.threads), cache_bytes="0").start()
    rng = np.random.default_rng(args.seed)

    def timed(seconds: float) -> list[float]:
        answers = closed_loop(service.url, "/recommend", _bodies(rng, time.perf_counter() + seconds), 1)
        if set(answers.statuses) != {200}:
            sys.exit(f"/recommend returned the statuses {dict(answers.statuses)}")
        return answers.seconds

    try:
        timed(1.0)
        yield timed
    finally:
        service.kill()


def _bodies(rng: np.random.Generator, until: float) -> Iterator[bytes]:
    while time.perf_counter() < until:
        history = [item(number).item_id for number in rng.choice(CATALOGUE, HISTORY, replace=False).tolist()]
        yield json.dumps({"history": history}).encode()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench threads", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz", help="items to train the tokenizer on")
    parser.add_argument(
        "--attributes", default="title,brand,category", help="attributes to read as text, in this order"
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384, help="a multiple of 32, the size of a head")
    parser.add_argument("--tokens", type=int, default=256, help="length of the history that is encoded")
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=choose().count)
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
