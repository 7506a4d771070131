"""Memory of a process that serves a catalogue: growth with the number of items, and the cost of a second process.

    seqrec bench memory                  # 1,000 and 1,000,000 items x 384; 3 minutes, 4 GB of disk, 3 GB of memory

A snapshot of random vectors is made for each size and opened as a worker opens it, without HTTP. An exact search reads
every vector. Memory is the kernel's PSS, which divides shared pages among the processes that map them. The model has no
weights, since its memory does not depend on the number of items.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.tools.report import Line, Report, Spread, add_output, log
from benchmarks.tools.service_process import environment, make_checkpoint
from benchmarks.tools.synthetic import make_home
from seqrec.runtime.arguments import Parser

MB = 1e6


@dataclass(frozen=True)
class Memory:
    """In MB. `pss` includes `anonymous` memory and memory-mapped files such as libraries."""

    pss: float
    anonymous: float

    @classmethod
    def of(cls, process_id: int) -> Memory:
        lines = Path(f"/proc/{process_id}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        sizes = {name: int(rest.split()[0]) * 1024 / MB for name, _, rest in (line.partition(":") for line in lines)}
        return cls(sizes["Pss"], sizes["Pss_Anon"])


@dataclass(frozen=True)
class Measured:
    """Memory of one process alone, and of two processes together that serve the same snapshot."""

    one: Memory
    both: float

    @property
    def second(self) -> float:
        return self.both - self.one.pss


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    small, large = args.sizes
    report = Report("memory", f"memory of a worker, {small:,} and {large:,} items x {args.dim}, exact", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-memory-") as name:
        checkpoint = make_checkpoint(Path(name) / "checkpoint", dim=args.dim)
        homes = {}
        for count in args.sizes:
            log(f"writing {count:,} items")
            homes[count] = make_home(Path(name) / f"home-{count}", checkpoint, count)
        measured: dict[int, list[Measured]] = {count: [] for count in args.sizes}
        for number in range(args.rounds):
            for count, home in homes.items():
                measured[count].append(measure(home))
                log(f"round {number + 1} of {args.rounds}: {count:,} items take {measured[count][-1].one.pss:,.0f} MB")
    vectors = 4 * args.dim * (large - small) / MB
    report.notes += [
        f"the vectors of {large - small:,} items are {vectors:,.0f} MB; ratios are relative to that",
        "targets: one process grows by at most 1.3 times that, and the cost of a second one by at most 0.1 times",
    ]
    add_lines(report, measured, vectors)
    report.finish(args.json, args.picture)


def measure(home: Path) -> Measured:
    with serving_process(home) as first:
        one = Memory.of(first)
        with serving_process(home) as second:
            return Measured(one, Memory.of(first).pss + Memory.of(second).pss)


@contextmanager
def serving_process(home: Path) -> Iterator[int]:
    """Starts a process that has loaded what is published in `home`. -> its id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.tools.loaded_process", str(home)],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            sys.exit(f"the process that opens {home} ended with exit code {process.wait()}")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def add_lines(report: Report, measured: dict[int, list[Measured]], vectors: float) -> None:
    """`measured` by the number of items, the smaller one first; `vectors` in MB."""
    small, large = measured.values()
    for count, rounds in measured.items():
        part = f"{count:,} items"
        for name, values in (
            ("one process", [one.one.pss for one in rounds]),
            ("of which anonymous", [one.one.anonymous for one in rounds]),
            ("a second process adds", [one.second for one in rounds]),
        ):
            report.add(Line(part, name, median(values), "MB"))
    pairs = list(zip(small, large, strict=True))
    for name, grown in (
        ("one process", [after.one.pss - before.one.pss for before, after in pairs]),
        ("of which anonymous", [after.one.anonymous - before.one.anonymous for before, after in pairs]),
        ("a second process", [after.second - before.second for before, after in pairs]),
    ):
        ratio = Spread.of([more / vectors for more in grown])
        report.add(Line("growth", name, median(grown), "MB", ratio, "the vectors as stored"))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench memory", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--sizes", type=int, nargs=2, default=[1_000, 1_000_000], metavar="ITEMS", help="two numbers of items"
    )
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    add_output(parser)
    args = parser.parse_args(argv)
    if not 0 < args.sizes[0] < args.sizes[1]:
        parser.error("--sizes needs two numbers of items, the smaller one first")
    return args


if __name__ == "__main__":
    main()
