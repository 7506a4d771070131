"""Memory of a process that holds a catalogue: what more items cost, and what a second process that holds the same adds.

    seqrec bench memory                      # 1,000 and 1,000,000 items x 384; 3 minutes, 4 GB of disk, 3 GB of memory

A snapshot of each size is made of random vectors and opened as a worker of the service opens it, without HTTP; it is
searched, exactly, so that every vector has been read. Memory is what the kernel says of a process (PSS: pages that
several processes map are shared out among them). The model is the one without weights: it costs the same at any size.
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

from benchmarks.report import Line, Report, Spread, add_output
from benchmarks.service_process import environment, make_checkpoint
from benchmarks.synthetic import make_home

MB = 1e6


@dataclass(frozen=True)
class Memory:
    """MB. `pss` is `anonymous` and what is mapped from files, libraries among them."""

    pss: float
    anonymous: float

    @classmethod
    def of(cls, process_id: int) -> Memory:
        lines = Path(f"/proc/{process_id}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        sizes = {name: int(rest.split()[0]) * 1024 / MB for name, _, rest in (line.partition(":") for line in lines)}
        return cls(sizes["Pss"], sizes["Pss_Anon"])


@dataclass(frozen=True)
class Held:
    """One process alone, and what both take when a second one holds the same."""

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
            _say(f"writing {count:,} items")
            homes[count] = make_home(Path(name) / f"home-{count}", checkpoint, count)
        held: dict[int, list[Held]] = {count: [] for count in args.sizes}
        for number in range(args.rounds):
            for count, home in homes.items():
                held[count].append(measure(home))
                _say(f"round {number + 1} of {args.rounds}: {count:,} items take {held[count][-1].one.pss:,.0f} MB")
    vectors = 4 * args.dim * (large - small) / MB
    report.notes += [
        f"the vectors of {large - small:,} items are {vectors:,.0f} MB; ratios are shares of that",
        "wanted: one process grows by at most 1.3 of it; what a second process adds, by at most 0.1",
    ]
    tell(report, held, vectors)
    report.finish(args.json, args.picture)


def measure(home: Path) -> Held:
    with holding(home) as first:
        one = Memory.of(first)
        with holding(home) as second:
            return Held(one, Memory.of(first).pss + Memory.of(second).pss)


@contextmanager
def holding(home: Path) -> Iterator[int]:
    """The id of a process that holds what is published in `home`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.loaded_process", str(home)],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            sys.exit(f"the process that was to open {home} ended with {process.wait()}")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def tell(report: Report, held: dict[int, list[Held]], vectors: float) -> None:
    """`held` by the number of items, the smaller one first; `vectors` in MB."""
    small, large = held.values()
    for count, rounds in held.items():
        part = f"{count:,} items"
        for name, values in (
            ("one process", [one.one.pss for one in rounds]),
            ("of which not from files", [one.one.anonymous for one in rounds]),
            ("a second process adds", [one.second for one in rounds]),
        ):
            report.add(Line(part, name, median(values), "MB"))
    pairs = list(zip(small, large, strict=True))
    for name, grown in (
        ("one process", [after.one.pss - before.one.pss for before, after in pairs]),
        ("of which not from files", [after.one.anonymous - before.one.anonymous for before, after in pairs]),
        ("a second process", [after.second - before.second for before, after in pairs]),
    ):
        ratio = Spread.of([more / vectors for more in grown])
        report.add(Line("growth", name, median(grown), "MB", ratio, "the vectors as stored"))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="seqrec bench memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs=2, default=[1_000, 1_000_000], metavar="ITEMS", help="two of them")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    add_output(parser)
    args = parser.parse_args(argv)
    if not 0 < args.sizes[0] < args.sizes[1]:
        parser.error("--sizes are two numbers of items, the smaller one first")
    return args


if __name__ == "__main__":
    main()
