"""The batcher with a compute function of the test's own: no model, no HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
import torch

from seqrec.errors import NotReady, Overloaded
from service.engine.batcher import MAX_URGENT_BATCHES, Batcher, BatchRecord, Lane, Pace


class Gate:
    """A compute function that notes its batches, and can be held up to let a queue gather."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()

    def __call__(self, units: list[Any]) -> Sequence[Any]:
        self.batches.append(list(units))
        self.entered.set()
        assert self.open.wait(10)
        if "poison" in units:
            raise ValueError("poison")
        return [f"{unit}!" for unit in units]

    def hold(self) -> None:
        self.open.clear()
        self.entered.clear()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def records() -> list[BatchRecord]:
    return []


@pytest.fixture
def batcher(gate: Gate, records: list[BatchRecord]) -> Iterator[Batcher]:
    lanes = [Lane("recommend", gate, 10, 30), Lane("items", gate, 4, 30)]
    batcher = Batcher(lanes, records.append)
    yield batcher
    gate.open.set()
    batcher.close()
    assert not batcher.alive


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


async def held(batcher: Batcher, gate: Gate) -> asyncio.Task[Any]:
    """A request that keeps the compute thread busy until the gate opens."""
    gate.hold()
    task = asyncio.create_task(batcher.submit("recommend", ["first"], [1]))
    await asyncio.to_thread(gate.entered.wait, 10)
    return task


def test_results_come_in_the_order_of_the_units(batcher: Batcher) -> None:
    async def check() -> None:
        results, ticket = await batcher.submit("recommend", list("abc"), [1, 2, 3])
        assert results == ["a!", "b!", "c!"]
        assert ticket.batch_units == 3
        assert (await batcher.submit("recommend", [], []))[0] == []

    run(check)


def test_what_waits_is_the_next_batch_up_to_the_budget(
    batcher: Batcher, gate: Gate, records: list[BatchRecord]
) -> None:
    async def check() -> None:
        first = await held(batcher, gate)
        others = [asyncio.create_task(batcher.submit("recommend", [name], [4])) for name in "abc"]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *others)
        assert gate.batches == [["first"], ["a", "b"], ["c"]]

    run(check)
    assert [(record.units, record.tokens, record.failed) for record in records[:2]] == [(1, 1, False), (2, 8, False)]


def test_a_unit_over_the_budget_goes_alone(batcher: Batcher, gate: Gate) -> None:
    async def check() -> None:
        first = await held(batcher, gate)
        large = asyncio.create_task(batcher.submit("recommend", ["small", "large", "tiny"], [1, 25, 1]))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, large)
        assert gate.batches[1:] == [["small"], ["large"], ["tiny"]]

    run(check)


def test_recommendations_go_first_but_items_are_not_starved(batcher: Batcher, gate: Gate) -> None:
    async def check() -> None:
        first = await held(batcher, gate)
        items = asyncio.create_task(batcher.submit("items", ["i"], [1]))
        await asyncio.sleep(0)
        # One batch each: two do not fit the budget.
        others = [asyncio.create_task(batcher.submit("recommend", [f"r{n}"], [6])) for n in range(4)]
        await asyncio.sleep(0)
        late = asyncio.create_task(batcher.submit("recommend", ["r4"], [6]))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, items, *others, late)
        order = [batch[0] for batch in gate.batches]
        assert order == ["first", *(f"r{n}" for n in range(MAX_URGENT_BATCHES)), "i", "r4"]

    run(check)


def test_too_much_waiting_is_refused_at_once_and_says_when_to_come_back(batcher: Batcher, gate: Gate) -> None:
    async def check() -> None:
        first = await held(batcher, gate)
        # More than the queue holds is taken where none waits: it could never be asked otherwise.
        large = asyncio.create_task(batcher.submit("recommend", list("abcdefgh"), [5] * 8))
        await asyncio.sleep(0)
        assert batcher.waiting_tokens("recommend") == 40
        with pytest.raises(Overloaded, match="40 tokens of work are waiting, at most 30 may") as refused:
            await batcher.submit("recommend", ["x"], [1])
        assert refused.value.retry_after >= 1
        other_lane = asyncio.create_task(batcher.submit("items", ["y"], [1]))
        gate.open.set()
        await asyncio.gather(first, large, other_lane)
        assert batcher.waiting_tokens("recommend") == 0

    run(check)


def test_a_cancelled_request_leaves_the_queue(batcher: Batcher, gate: Gate) -> None:
    async def check() -> None:
        first = await held(batcher, gate)
        gone = asyncio.create_task(batcher.submit("recommend", ["gone", "gone too"], [5, 5]))
        stays = asyncio.create_task(batcher.submit("recommend", ["stays"], [5]))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert batcher.waiting_tokens("recommend") == 5
        gate.open.set()
        await asyncio.gather(first, stays)
        assert gate.batches == [["first"], ["stays"]]

    run(check)


def test_a_request_cancelled_while_it_is_computed_harms_nobody(batcher: Batcher, gate: Gate) -> None:
    async def check() -> None:
        first = await held(batcher, gate)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.open.set()
        assert (await batcher.submit("recommend", ["next"], [1]))[0] == ["next!"]

    run(check)


def test_a_poisoned_unit_fails_its_own_request_only(batcher: Batcher, gate: Gate, records: list[BatchRecord]) -> None:
    async def check() -> None:
        first = await held(batcher, gate)
        tasks = [
            asyncio.create_task(batcher.submit("recommend", units, [1] * len(units)))
            for units in (["a"], ["b", "poison"], ["c"])
        ]
        await asyncio.sleep(0)
        gate.open.set()
        await first
        good, bad, fine = await asyncio.gather(*tasks, return_exceptions=True)
        assert good[0] == ["a!"]
        assert fine[0] == ["c!"]
        assert isinstance(bad, ValueError)
        assert (await batcher.submit("recommend", ["later"], [1]))[0] == ["later!"]

    run(check)
    assert [record.failed for record in records[:2]] == [False, True]


def test_a_failing_batch_reaches_every_waiter() -> None:
    def broken(units: list[Any]) -> Sequence[Any]:
        raise RuntimeError("out of memory")

    batcher = Batcher([Lane("recommend", broken, 10, 30)])

    async def check() -> None:
        outcomes = await asyncio.gather(
            *(batcher.submit("recommend", [n], [1]) for n in range(5)), return_exceptions=True
        )
        assert [str(outcome) for outcome in outcomes] == ["out of memory"] * 5

    run(check)
    assert batcher.alive
    batcher.close()


def test_too_few_results_are_an_error_not_a_hang() -> None:
    batcher = Batcher([Lane("recommend", lambda units: [], 10, 30)])

    async def check() -> None:
        with pytest.raises(RuntimeError, match="0 results for 1 units"):
            await batcher.submit("recommend", ["a"], [1])

    run(check)
    batcher.close()


def test_when_the_thread_dies_every_waiter_fails_and_it_shows() -> None:
    entered = threading.Event()

    def deadly(units: list[Any]) -> Sequence[Any]:
        entered.wait(10)
        raise SystemExit("the thread is gone")

    batcher = Batcher([Lane("recommend", deadly, 1, 30)])

    async def check() -> None:
        tasks = [asyncio.create_task(batcher.submit("recommend", [n], [1])) for n in range(3)]
        await asyncio.sleep(0.01)
        entered.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotReady] * 3
        with pytest.raises(NotReady, match="a compute thread has ended"):
            await batcher.submit("recommend", ["later"], [1])

    run(check)
    deadline = time.monotonic() + 5
    while batcher.alive and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not batcher.alive
    assert isinstance(batcher.failure, SystemExit)


def test_closing_computes_what_waits(gate: Gate) -> None:
    batcher = Batcher([Lane("recommend", gate, 1, 30)])

    async def check() -> None:
        first = await held(batcher, gate)
        waiting = asyncio.create_task(batcher.submit("recommend", ["a", "b"], [1, 1]))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        gate.open.set()
        await asyncio.gather(first, waiting, closing)
        assert waiting.result()[0] == ["a!", "b!"]

    run(check)


def test_who_would_wait_past_its_deadline_is_refused_at_once(batcher: Batcher, gate: Gate) -> None:
    async def check() -> None:
        batcher.pace.tokens_per_second = 10.0
        first = await held(batcher, gate)
        patient = asyncio.create_task(batcher.submit("recommend", ["patient"], [20], 1.5))  # nothing waits before it
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"20 tokens .* take about 2\.0 s; it may wait 1\.5 s") as refused:
            await batcher.submit("recommend", ["hasty"], [1], 1.5)
        assert refused.value.retry_after == 1
        fits = asyncio.create_task(batcher.submit("recommend", ["fits"], [1], 2.5))
        await asyncio.sleep(0)
        gate.open.set()
        assert (await patient)[0] == ["patient!"]
        assert (await fits)[0] == ["fits!"]
        await first
        assert not any("hasty" in batch for batch in gate.batches)

    run(check)


def test_the_pace_separates_encoding_from_what_any_batch_costs() -> None:
    pace = Pace()
    for _ in range(50):
        pace.observe(units=8, tokens=8, seconds=0.01)  # vectors from the cache: search alone
    assert pace.seconds(4_000, 4_000) == pytest.approx(0.01 + 0.8, rel=0.01)  # says nothing of tokens
    for _ in range(50):
        pace.observe(units=8, tokens=4_000, seconds=0.41)
    assert pace.seconds(4_000, 4_000) == pytest.approx(0.41, rel=0.01)
    assert pace.seconds(40_000, 4_000) == pytest.approx(4.1, rel=0.01)
    assert pace.seconds(0, 4_000) == 0


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("you tried: can't allocate memory")],
)
def test_what_does_not_fit_into_memory_is_halved(error: Exception, records: list[BatchRecord]) -> None:
    batches: list[list[Any]] = []

    def compute(units: list[Any]) -> list[Any]:
        batches.append(units)
        if len(units) > 2:
            raise error
        return [f"{unit}!" for unit in units]

    batcher = Batcher([Lane("recommend", compute, 100, 1000)], records.append)

    async def check() -> None:
        results, _ = await batcher.submit("recommend", list("abcdefgh"), [10] * 8)
        assert results == [f"{unit}!" for unit in "abcdefgh"]
        assert [len(batch) for batch in batches] == [8, 4, 2, 2, 4, 2, 2]
        batches.clear()
        await batcher.submit("recommend", list("abcdefgh"), [10] * 8)
        assert [len(batch) for batch in batches] == [2, 2, 2, 2]  # it has learned

    run(check)
    batcher.close()
    assert not any(record.failed for record in records)


def test_one_that_alone_does_not_fit_fails_alone(records: list[BatchRecord]) -> None:
    def compute(units: list[Any]) -> list[Any]:
        if "huge" in units:
            raise MemoryError("huge")
        return [f"{unit}!" for unit in units]

    batcher = Batcher([Lane("recommend", compute, 100, 1000)], records.append)

    async def check() -> None:
        one = asyncio.create_task(batcher.submit("recommend", ["a"], [1]))
        huge = asyncio.create_task(batcher.submit("recommend", ["huge"], [1]))
        other = asyncio.create_task(batcher.submit("recommend", ["b"], [1]))
        assert (await one)[0] == ["a!"]
        assert (await other)[0] == ["b!"]
        with pytest.raises(MemoryError, match="huge"):
            await huge
        await batcher.submit("recommend", list("cdef"), [25] * 4)

    run(check)
    batcher.close()
    assert (records[-1].units, records[-1].tokens) == (4, 100)  # no batch is smaller for its sake


def test_requests_take_turns_so_that_a_large_one_does_not_delay_the_others(batcher: Batcher, gate: Gate) -> None:
    async def check() -> None:
        first = await held(batcher, gate)
        large = asyncio.create_task(batcher.submit("recommend", [f"large-{n}" for n in range(6)], [3] * 6))
        small = asyncio.create_task(batcher.submit("recommend", ["small"], [3]))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, large, small)
        assert gate.batches[1] == ["large-0", "small", "large-1"]

    run(check)


def test_requests_of_several_units_leave_room_for_single_ones(batcher: Batcher, gate: Gate) -> None:
    async def check() -> None:
        first = await held(batcher, gate)
        large = asyncio.create_task(batcher.submit("recommend", ["a", "b"], [10, 10]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="at most 22 may wait"):
            await batcher.submit("recommend", ["c", "d"], [2, 2])
        single = asyncio.create_task(batcher.submit("recommend", ["single"], [4]))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, large)
        assert (await single)[0] == ["single!"]

    run(check)


def test_a_client_with_many_requests_does_not_delay_another(batcher: Batcher, gate: Gate) -> None:
    async def test() -> None:
        blocker = await held(batcher, gate)
        greedy = [asyncio.create_task(batcher.submit("recommend", [f"g{n}"], [5], client="greedy")) for n in range(4)]
        await asyncio.sleep(0)
        modest = asyncio.create_task(batcher.submit("recommend", ["m"], [5], client="modest"))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(blocker, modest, *greedy)
        assert gate.batches[1:] == [["g0", "m"], ["g1", "g2"], ["g3"]]

    run(test)


def test_a_client_leaves_room_in_the_queue_for_others(batcher: Batcher, gate: Gate) -> None:
    async def test() -> None:
        blocker = await held(batcher, gate)
        greedy = [asyncio.create_task(batcher.submit("recommend", [n], [4], client="greedy")) for n in range(6)]
        await asyncio.sleep(0)
        with pytest.raises(
            Overloaded, match=r"24 tokens of this client's work are waiting, and the rest .* for others"
        ):
            await batcher.submit("recommend", ["more"], [4], client="greedy")
        modest = asyncio.create_task(batcher.submit("recommend", ["m"], [4], client="modest"))
        await asyncio.sleep(0)
        assert batcher.waiting_tokens("recommend") == 28
        gate.open.set()
        await asyncio.gather(blocker, modest, *greedy)
        assert batcher.waiting_tokens("recommend") == 0

    run(test)


def test_the_turn_of_a_modest_client_is_in_the_estimate(batcher: Batcher, gate: Gate) -> None:
    """What a greedy client has waiting does not make another's deadline seem out of reach."""

    async def test() -> None:
        blocker = await held(batcher, gate)
        batcher.pace.tokens_per_second = 10.0
        greedy = [asyncio.create_task(batcher.submit("recommend", [n], [5], client="greedy")) for n in range(4)]
        await asyncio.sleep(0)
        modest = asyncio.create_task(batcher.submit("recommend", ["m"], [1], 1.0, "modest"))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="21 tokens of work come first"):
            await batcher.submit("recommend", ["late"], [1], 1.0, "greedy")
        gate.open.set()
        await asyncio.gather(blocker, modest, *greedy)

    run(test)


def test_a_request_larger_than_the_queue_does_not_shut_others_out(batcher: Batcher, gate: Gate) -> None:
    async def test() -> None:
        blocker = await held(batcher, gate)
        large = asyncio.create_task(batcher.submit("recommend", list("abcdefgh"), [8] * 8, client="greedy"))
        await asyncio.sleep(0)
        assert batcher.waiting_tokens("recommend") == 64
        with pytest.raises(Overloaded):
            await batcher.submit("recommend", ["more"], [1], client="greedy")
        modest = asyncio.create_task(batcher.submit("recommend", ["m"], [5], client="modest"))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(blocker, modest, large)
        assert gate.batches[1] == ["a"]
        assert gate.batches[2] == ["m"]

    run(test)
