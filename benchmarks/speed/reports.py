"""Reports of impressions and outcomes in SQLite, a user's deletion, and forgetting a day: the time of each.

    seqrec bench reports                          # 10,000,000 events; 10 minutes, 3 GB of disk

Events are written straight into the tables, with the sums that the store would keep of them. Each report is made by a
store that was just opened, as `seqrec report` does; the file's pages may be in the memory of the system. While a day is
forgotten, another store writes events one by one.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from benchmarks.tools.report import Line, Report, add_output, log
from index.catalogue.histories import Event
from index.catalogue.outcomes import DAY, MOMENTS, Counts, Dimension
from index.catalogue.sqlite.histories import SqliteHistories
from seqrec.runtime.arguments import Parser
from service.reports.report import make_report

PLACEMENTS = ("home", "product-page", "cart", "email")
VARIANTS = ("a", "b")
SOURCES = ("model", "popular", "explored", "pinned")
LISTED = 10
"""Items of an answer, all of them shown."""
CLICKED, PURCHASED = 0.05, 0.01
"""Shares of what was shown."""
ITEMS = 200_000
FIRST_DAY = 20_000
_PAUSE = 0.01
AT_ONCE = 100_000
"""Answers that are written together."""
Numbers = npt.NDArray[np.int64]
_INDEXES = ("by_user", "by_type", "by_recommendation", "once")
_COUNTED = ("shown", "clicked", "purchase", "value", "value2")


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    report = Report("reports", f"reports over {args.events:,} events of {args.days} days", vars(args))
    with tempfile.TemporaryDirectory(prefix="seqrec-reports-") as temporary:
        path = Path(temporary) / "histories.sqlite3"
        began = time.perf_counter()
        made = write(path, args.events, args.users, args.days)
        log(f"wrote {made:,} events in {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1e9:.1f} GB")
        now = (FIRST_DAY + args.days) * DAY - 1.0
        for days in (30, args.days):
            for by in get_args(Dimension):
                made_by = partial(make_report, placements={}, by=by, days=days, now=now)
                seconds = [timed(path, made_by) for _ in range(args.rounds)]
                report.add(Line(f"{days} days", f"by {by}", 1000 * median(seconds), "ms"))
        gone = [partial(SqliteHistories.delete, user_id=f"user-{number}") for number in range(args.rounds)]
        report.add(Line("changes", "delete a user", 1000 * median(timed(path, one) for one in gone), "ms"))
        forgotten, longest = forget(path)
        report.add(Line("changes", "forget the oldest day", 1000 * forgotten, "ms"))
        report.add(Line("changes", "longest write meanwhile", 1000 * longest, "ms"))
    report.notes.append(f"{made:,} events; wanted: each report in less than 2,000 ms on 2 cores")
    report.finish(args.json, args.picture)


def timed(path: Path, work: Callable[[SqliteHistories], object]) -> float:
    """Seconds, with the time of opening the store."""
    began = time.perf_counter()
    with closing(SqliteHistories(path)) as store:
        work(store)
        return time.perf_counter() - began


def forget(path: Path) -> tuple[float, float]:
    """Seconds in which the oldest day is forgotten, and of the longest of the writes of another store meanwhile."""
    with closing(SqliteHistories(path)) as store, ThreadPoolExecutor(1) as pool:
        forgetting = pool.submit(timed, path, partial(SqliteHistories.forget_outcomes, before=FIRST_DAY + 1))
        longest = 0.0
        while not forgetting.done():
            began = time.perf_counter()
            store.add([Event("user-0", "item-0", time.time())])
            longest = max(longest, time.perf_counter() - began)
            time.sleep(_PAUSE)
        return forgetting.result(), longest


def write(path: Path, events: int, users: int, days: int) -> int:
    """A store with about so many events -> how many there are."""
    SqliteHistories(path).close()
    draw = np.random.default_rng(1)
    per_answer = LISTED * (1 + CLICKED + PURCHASED)
    answers = max(1, round(events / per_answer))
    sums = _Sums(users)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        indexes = [
            connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
            for name in _INDEXES
        ]
        for name in _INDEXES:  # made at the end, which takes a fraction of the time
            connection.execute(f"DROP INDEX {name}")
        _write_slots(connection, days)
        for begin in range(0, answers, AT_ONCE):
            count = min(AT_ONCE, answers - begin)
            # In the order of time.
            times = FIRST_DAY * DAY + (begin + np.arange(count)) * (days * DAY) // answers
            connection.executemany(
                "INSERT INTO events (user_id, item_id, timestamp, type, value, recommendation, slot, position, source, "
                "cold) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                _rows(draw, times, users, sums),
            )
            connection.commit()
            log(f"{begin + count:,} of {answers:,} answers")
        sums.write(connection)
        for statement in indexes:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA journal_mode = WAL")
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


def slot_of(placement: Numbers, variant: Numbers, day: Numbers) -> Numbers:
    """From 1: each day has a new snapshot."""
    return 1 + (day * len(PLACEMENTS) + placement) * len(VARIANTS) + variant


def _write_slots(connection: sqlite3.Connection, days: int) -> None:
    rows = [
        (placement, 1, "models", variant, f"model-{variant}-{day // 7}", f"snapshot-{variant}-{day}")
        for day in range(days)
        for placement in PLACEMENTS
        for variant in VARIANTS
    ]
    connection.executemany(
        "INSERT INTO slots (placement, version, experiment, variant, model, snapshot) VALUES (?, ?, ?, ?, ?, ?)", rows
    )


def _rows(draw: np.random.Generator, times: Numbers, users: int, sums: _Sums) -> Iterator[tuple[Any, ...]]:
    """The events of answers of these times; what they sum to is added."""
    n = len(times)
    user, placement = draw.integers(users, size=n), draw.integers(len(PLACEMENTS), size=n)
    variant = (user * 2654435761 + placement) >> 7 & 1  # of a user in a placement always the same one
    day = times // DAY
    slot = slot_of(placement, variant, day - FIRST_DAY)
    names = draw.bytes(8 * n)
    item = draw.integers(ITEMS, size=(n, LISTED))
    source = draw.choice(len(SOURCES), size=(n, LISTED), p=[0.85, 0.05, 0.05, 0.05])
    cold = draw.random((n, LISTED)) < 0.1
    clicked = draw.random((n, LISTED)) < CLICKED
    purchased = draw.random((n, LISTED)) < PURCHASED
    cents = draw.integers(100, 10_000, size=(n, LISTED)) * purchased
    sums.add(day, slot, source, cold, clicked, purchased, cents / 100, user, placement * len(VARIANTS) + variant)
    columns = (user, times, slot, item, source, cold, clicked, purchased, cents)
    for row, (of, when, its_slot, *listed) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        recommendation = when.to_bytes(4) + names[8 * row : 8 * row + 8]
        for position, (an_item, its_source, is_cold, click, buy, worth) in enumerate(zip(*listed, strict=True), 1):
            place = (recommendation, its_slot, position, SOURCES[its_source], int(is_cold))
            name, item_id = f"user-{of}", f"item-{an_item}"
            yield (name, item_id, float(when), "shown", None, *place)
            if click:
                yield (name, item_id, when + 5.0, "clicked", None, *place)
            if buy:
                yield (name, item_id, when + 60.0, "purchase", worth / 100, *place)


class _Sums:
    """The tables of sums, as `index.catalogue.sqlite.outcome_tables` keeps them."""

    def __init__(self, users: int) -> None:
        self._counts: dict[tuple[int, int, int, int, int], npt.NDArray[np.float64]] = {}
        self._users = np.zeros((len(_COUNTED), users, len(PLACEMENTS) * len(VARIANTS)))

    def add(
        self,
        day: Numbers,
        slot: Numbers,
        source: Numbers,
        cold: npt.NDArray[np.bool_],
        clicked: npt.NDArray[np.bool_],
        purchased: npt.NDArray[np.bool_],
        value: npt.NDArray[np.float64],
        user: Numbers,
        trial: Numbers,
    ) -> None:
        """Of answers [n], and of their items [n, LISTED]."""
        position = np.broadcast_to(np.arange(1, LISTED + 1), source.shape)
        parts = (np.repeat(day, LISTED), np.repeat(slot, LISTED), position.ravel(), source.ravel(), cold.ravel())
        groups, of = np.unique(np.stack(parts, 1), axis=0, return_inverse=True)
        of = of.ravel()
        for number, what in enumerate((np.ones(source.shape), clicked, purchased, value, value**2)):
            totals = np.bincount(of, what.ravel(), len(groups))
            for group, total in zip(map(tuple, groups.tolist()), totals.tolist(), strict=True):
                self._counts.setdefault(group, np.zeros(len(_COUNTED)))[number] += total
            np.add.at(self._users[number], (user, trial), what.sum(1))

    def write(self, connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (day, slot, position, SOURCES[source], cold, shown, clicked, 0.0, purchase, value, value2)
                for (day, slot, position, source, cold), sums in sorted(self._counts.items())
                for shown, clicked, purchase, value, value2 in [sums.tolist()]
            ),
        )
        last = connection.execute("SELECT max(day) FROM counts").fetchone()[0]
        for placement in range(len(PLACEMENTS)):
            for variant in range(len(VARIANTS)):
                self._write_trial(connection, PLACEMENTS[placement], VARIANTS[variant], last)

    def _write_trial(self, connection: sqlite3.Connection, placement: str, variant: str, last: int) -> None:
        at = PLACEMENTS.index(placement) * len(VARIANTS) + VARIANTS.index(variant)
        by_name = dict(zip(_COUNTED, self._users[:, :, at], strict=True))
        users = np.flatnonzero(by_name["shown"])
        own: dict[str, npt.NDArray[np.float64]] = {name: by_name[name][users] for name in _COUNTED}
        own |= {"users": np.ones(len(users)), "cart": np.zeros(len(users))}
        moments = [float(np.prod([own[part] for part in name.split("_")], axis=0).sum()) for name in MOMENTS]
        trial = connection.execute(
            f"INSERT INTO trials (placement, experiment, variant, last_day, {', '.join(MOMENTS)}) "
            f"VALUES (?, 'models', ?, ?, {', '.join('?' * len(MOMENTS))}) RETURNING trial",
            (placement, variant, last, *moments),
        ).fetchone()[0]
        counted = [own[name].tolist() for name in Counts._fields]
        connection.executemany(
            "INSERT INTO trial_users VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            ((f"user-{user}", trial, *sums) for user, *sums in zip(users.tolist(), *counted, strict=True)),
        )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench reports", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=10_000_000, help="about so many; default: 10,000,000")
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--rounds", type=int, default=5)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
