"""Bulk writes of a client take turns and rest while others ask."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from seqrec.errors import DeadlineExceeded, Overloaded
from service.deadline import Deadline
from service.engine.batcher import Batcher, Lane
from service.engine.turns import WRITE_SHARE, WriteTurns

WORK = 0.05


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


async def write(
    turns: WriteTurns, client: str, spans: list[tuple[float, float]], seconds: float = 10.0, least_rest: float = 0.0
) -> None:
    async with turns.turn(client, Deadline(seconds), least_rest):
        began = time.monotonic()
        await asyncio.sleep(WORK)
        spans.append((began, time.monotonic()))


def test_where_nobody_else_asks_writes_run_at_once() -> None:
    async def test() -> None:
        turns, spans = WriteTurns(lambda client: False), list[tuple[float, float]]()
        await asyncio.gather(*(write(turns, "a", spans) for _ in range(4)))
        assert max(begin for begin, _ in spans) < min(end for _, end in spans)

    run(test)


def test_while_others_ask_a_clients_writes_come_one_by_one_and_rest_in_between() -> None:
    async def test() -> None:
        turns, spans = WriteTurns(lambda client: True), list[tuple[float, float]]()
        await asyncio.gather(*(write(turns, "a", spans) for _ in range(4)))
        for (began, ended), (after, _) in itertools.pairwise(spans):
            assert after - ended >= 0.9 * (ended - began) * (1 / WRITE_SHARE - 1)

    run(test)


def test_a_rest_may_have_a_least_length() -> None:
    async def test() -> None:
        turns, spans = WriteTurns(lambda client: True), list[tuple[float, float]]()
        for _ in range(2):
            await write(turns, "a", spans, least_rest=0.5)
        assert spans[1][0] - spans[0][1] >= 0.45

    run(test)


def test_clients_do_not_wait_for_each_others_writes() -> None:
    async def test() -> None:
        turns, spans = WriteTurns(lambda client: True), list[tuple[float, float]]()
        await asyncio.gather(write(turns, "a", spans), write(turns, "b", spans))
        assert max(begin for begin, _ in spans) < min(end for _, end in spans)

    run(test)


def test_a_rest_ends_when_the_others_have_gone() -> None:
    async def test() -> None:
        others = True
        turns, spans = WriteTurns(lambda client: others), list[tuple[float, float]]()
        async with turns.turn("a", Deadline(10)):
            await asyncio.sleep(0.5)  # 2 s of rest
        waiting = asyncio.create_task(write(turns, "a", spans))
        await asyncio.sleep(0.1)
        assert not spans
        others = False
        await asyncio.wait_for(waiting, 1)

    run(test)


def test_a_turn_that_would_come_too_late_is_refused_at_once() -> None:
    async def test() -> None:
        turns, spans = WriteTurns(lambda client: True), list[tuple[float, float]]()
        await write(turns, "a", spans)
        with pytest.raises(Overloaded, match=r"it may wait 0\.1 s") as refused:
            async with turns.turn("a", Deadline(0.1)):
                raise AssertionError
        assert refused.value.retry_after >= 1
        await write(turns, "b", spans, 0.1)  # whose turn it is

    run(test)


def test_a_turn_that_does_not_come_passes_to_the_next() -> None:
    async def test() -> None:
        turns, spans = WriteTurns(lambda client: True), list[tuple[float, float]]()
        first = asyncio.create_task(write(turns, "a", spans))
        await asyncio.sleep(0)  # nothing is known yet of how long it takes
        with pytest.raises(DeadlineExceeded):
            await write(turns, "a", spans, 0.01)
        gone = asyncio.create_task(write(turns, "a", spans))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(first, write(turns, "a", spans))
        assert len(spans) == 2

    run(test)


def test_a_write_that_fails_gives_its_turn_back_and_is_forgotten_after_its_rest() -> None:
    async def test() -> None:
        turns, spans = WriteTurns(lambda client: True), list[tuple[float, float]]()
        with pytest.raises(ValueError, match="no"):
            async with turns.turn("a", Deadline(1)):
                raise ValueError("no")
        await asyncio.sleep(0.01)
        await write(turns, "b", spans)
        assert set(turns._writers) == {"b"}  # noqa: SLF001

    run(test)


def test_the_batcher_knows_whether_others_ask() -> None:
    batcher = Batcher([Lane("recommend", lambda units: units, 10, 30)])

    async def test() -> None:
        assert not batcher.others_ask("a")
        await batcher.submit("recommend", ["x"], [1], client="a")
        assert not batcher.others_ask("a")
        assert batcher.others_ask("b")

    try:
        run(test)
    finally:
        batcher.close()
