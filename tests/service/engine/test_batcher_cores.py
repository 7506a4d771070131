"""The batcher with several cores, with compute functions of the test's own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

import pytest
import torch

from seqrec.errors import NotReady
from seqrec.runtime.thread_pool import start_single_core_threads
from service.engine.batcher import Batcher, Lane, Pace

CORES = 2


class Watched:
    """A compute function that notes its batches with the thread and torch's threads; "x..." waits for `open`."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[Any], str, int]] = []
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, units: list[Any]) -> Sequence[Any]:
        self.batches.append((units, threading.current_thread().name, torch.get_num_threads()))
        self.entered.release()
        if any(unit.startswith("x") for unit in units):
            assert self.open.wait(10)
        return [f"{unit}!" for unit in units]

    async def enter(self, count: int = 1) -> None:
        for _ in range(count):
            assert await asyncio.to_thread(self.entered.acquire, timeout=10)


@pytest.fixture
def watched() -> Watched:
    return Watched()


B = TypeVar("B", bound=Batcher)


def run(
    test: Callable[[B], Coroutine[Any, Any, None]],
    compute: Callable[[list[Any]], Sequence[Any]],
    tokens: int,
    kind: type[B] = Batcher,  # type: ignore[assignment]
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)  # so that all cores and one differ
    try:
        batcher = kind([Lane("recommend", compute, tokens, 1000), Lane("items", compute, tokens, 1000)], cores=CORES)
        assert torch.get_num_threads() == 3
        asyncio.run(asyncio.wait_for(test(batcher), 20))
        batcher.close()
        assert not batcher.alive
    finally:
        torch.set_num_threads(before)


def ask(
    batcher: Batcher, units: Sequence[str], lane: str = "recommend", tokens: int = 4, client: str = ""
) -> asyncio.Task[Any]:
    return asyncio.create_task(batcher.submit(lane, units, [tokens] * len(units), client=client))


def test_one_alone_has_all_cores_and_the_next_waits_for_it(watched: Watched) -> None:
    async def check(batcher: Batcher) -> None:
        first = ask(batcher, ["x"])
        await watched.enter()
        second = ask(batcher, ["a"])
        await asyncio.sleep(0.05)
        assert [units for units, _, _ in watched.batches] == [["x"]]
        watched.open.set()
        await asyncio.gather(first, second)
        third = ask(batcher, ["b"])
        await third
        assert [(units, cores) for units, _, cores in watched.batches] == [(["x"], 3), (["a"], 3), (["b"], 3)]

    run(check, watched, 10)


def test_several_are_computed_side_by_side_each_on_one_core(watched: Watched) -> None:
    async def check(batcher: Batcher) -> None:
        both = ask(batcher, ["x1", "x2"])
        await watched.enter(2)  # the second begins before the first ends
        later = ask(batcher, ["a"])
        await asyncio.sleep(0.05)
        assert len(watched.batches) == CORES
        watched.open.set()
        await asyncio.gather(both, later)
        assert [cores for _, _, cores in watched.batches[:2]] == [1, 1]
        assert len({thread for _, thread, _ in watched.batches[:2]}) == 2

    run(check, watched, 10)


def test_one_that_comes_while_a_core_is_free_does_not_wait(watched: Watched) -> None:
    async def check(batcher: Batcher) -> None:
        first = ask(batcher, ["x1", "a"])
        await watched.enter(2)
        while batcher.computing > 1:
            await asyncio.sleep(0.001)
        assert (await ask(batcher, ["b"]))[0] == ["b!"]  # while "x1" runs
        assert watched.batches[-1][2] == 1
        watched.open.set()
        assert (await first)[0] == ["x1!", "a!"]

    run(check, watched, 10)


@pytest.mark.parametrize("lane", ["recommend", "items"])
def test_a_client_leaves_a_core_to_others_who_asked_lately(
    watched: Watched, lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.batcher.RESERVED_SECONDS", 60.0)

    async def check(batcher: Batcher) -> None:
        await ask(batcher, ["first"], client="modest")
        flood = ask(batcher, ["x1", "x2", "x3"], lane, tokens=10, client="greedy")
        await watched.enter(2)
        await asyncio.sleep(0.05)
        assert [units for units, _, _ in watched.batches] == [["first"], ["x1"]]
        assert (await ask(batcher, ["second"], client="modest"))[0] == ["second!"]  # while "x1" runs
        watched.open.set()
        assert (await flood)[0] == ["x1!", "x2!", "x3!"]

    run(check, watched, 10)


def test_a_client_has_all_cores_when_nobody_else_has_asked_lately(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.batcher.RESERVED_SECONDS", 0.0)

    async def check(batcher: Batcher) -> None:
        await ask(batcher, ["first"], client="modest")
        flood = ask(batcher, ["x1", "x2"], tokens=10, client="greedy")
        await watched.enter(3)
        watched.open.set()
        assert (await flood)[0] == ["x1!", "x2!"]

    run(check, watched, 10)


def test_it_is_busy_while_a_batch_is_computed_or_waits(watched: Watched) -> None:
    async def check(batcher: Batcher) -> None:
        assert not batcher.busy
        first = ask(batcher, ["x"])
        await watched.enter()
        assert batcher.busy
        watched.open.set()
        await first
        while batcher.computing:
            await asyncio.sleep(0.001)
        assert not batcher.busy

    run(check, watched, 10)


def test_what_waits_is_shared_out_fairly(watched: Watched) -> None:
    async def check(batcher: Batcher) -> None:
        request = ask(batcher, [f"x{n}" for n in range(6)])
        await watched.enter(CORES)
        watched.open.set()
        assert (await request)[0] == [f"x{n}!" for n in range(6)]
        assert sorted(len(units) for units, _, _ in watched.batches) == [3, 3]

    run(check, watched, 100)


def test_many_requests_of_many_units_all_end(watched: Watched) -> None:
    """Units of one request on several threads at once; a lost update would leave it waiting."""

    async def check(batcher: Batcher) -> None:
        names = [[f"{request}.{unit}" for unit in range(7)] for request in range(200)]
        lanes = ["recommend", "items"]
        done = await asyncio.gather(*(ask(batcher, units, lanes[at % 2], 1) for at, units in enumerate(names)))
        assert [results for results, _ in done] == [[f"{unit}!" for unit in units] for units in names]
        assert batcher.waiting_tokens("recommend") == batcher.waiting_tokens("items") == 0

    run(check, watched, 3)


def test_when_one_thread_dies_all_waiters_fail_and_none_takes_more() -> None:
    entered = threading.Event()
    begun: list[str] = []

    def deadly(units: list[Any]) -> Sequence[Any]:
        begun.extend(units)
        assert entered.wait(10)
        if "deadly" in units:
            raise SystemExit("the thread is gone")
        time.sleep(0.2)
        return units

    class Paused(Batcher):
        def pause(self) -> AbstractContextManager[object]:
            """No thread takes a batch until it is left."""
            return self._wake

    async def check(batcher: Paused) -> None:
        with batcher.pause():  # so that all four are there when the threads look
            tasks = [ask(batcher, [unit]) for unit in ("fine", "deadly", "waits", "waits too")]
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        entered.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[0], tuple)  # what the other thread had begun comes to its end
        assert [type(outcome) for outcome in outcomes[1:]] == [NotReady] * 3
        with pytest.raises(NotReady, match="a compute thread has ended"):
            await ask(batcher, ["later"])
        assert not batcher.alive
        assert sorted(begun) == ["deadly", "fine"]

    run(check, deadly, 4, Paused)


def test_the_wait_is_estimated_for_all_cores(watched: Watched) -> None:
    async def check(batcher: Batcher) -> None:
        batcher.pace.tokens_per_second = 10.0
        held = ask(batcher, ["x1", "x2"])
        await watched.enter(2)
        waits = ask(batcher, ["a"], tokens=20)
        await asyncio.sleep(0)
        # 20 tokens take 2 s on one of the two cores, so 1 s on both.
        fits = asyncio.create_task(batcher.submit("recommend", ["b"], [1], 1.1))
        await asyncio.sleep(0)
        watched.open.set()
        await asyncio.gather(held, waits, fits)

    run(check, watched, 30)


def test_who_is_left_alone_by_a_cancelled_request_is_not_forgotten(watched: Watched) -> None:
    """Two that wait are for threads of one core; when one of them goes, the other is for the thread of all cores."""

    class Late(Batcher):
        def _may_take(self, all_cores: bool) -> bool:  # threads of one core do not get to look while there are two
            return super()._may_take(all_cores) and (all_cores or len(self._queues["recommend"]) < 2)

    async def check(batcher: Batcher) -> None:
        gone, stays = ask(batcher, ["gone"]), ask(batcher, ["stays"])
        await asyncio.sleep(0.05)
        assert not watched.batches
        gone.cancel()
        assert (await stays)[0] == ["stays!"]

    run(check, watched, 4, Late)


def test_what_fails_on_one_core_fails_its_request_whichever_core_ends_first() -> None:
    def compute(units: list[Any]) -> Sequence[Any]:
        if "bad" in units:
            raise ValueError("bad")
        return units

    async def check(batcher: Batcher) -> None:
        for _ in range(200):
            with pytest.raises(ValueError, match="bad"):
                await ask(batcher, ["bad", "good"])

    run(check, compute, 4)


def test_a_thread_that_cannot_begin_is_an_error_and_changes_no_number() -> None:
    before = torch.get_num_threads()
    started: list[threading.Thread] = []

    def start(begin: Callable[[], object]) -> None:
        if started:
            raise RuntimeError("can't start new thread")

        def run_and_end() -> None:
            with suppress(threading.BrokenBarrierError):
                begin()

        started.append(threading.Thread(target=run_and_end))
        started[0].start()

    with pytest.raises(RuntimeError, match="can't start"):
        start_single_core_threads(2, start)
    started[0].join(5)
    assert not started[0].is_alive()
    assert torch.get_num_threads() == before


def test_the_pace_of_all_cores_together_counts_until_there_is_a_better_one() -> None:
    pace = Pace()
    for _ in range(50):
        pace.observe(1, 100, 1.0, cores=2)
    assert pace.seconds(1000, 500, 2) == pytest.approx(10, rel=0.1)  # 100 tokens a second, of two cores together
    for _ in range(50):
        pace.observe(1, 100, 1.0)
    assert pace.seconds(1000, 500, 2) == pytest.approx(5, rel=0.1)
    pace.observe(1, 100, 9.0, cores=2)
    assert pace.seconds(1000, 500, 2) == pytest.approx(5, rel=0.1)


def test_an_answer_wakes_no_thread_that_finds_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    woken = 0

    class Counted(threading.Condition):
        def notify_all(self) -> None:
            nonlocal woken
            woken += 1
            super().notify_all()

    monkeypatch.setattr(threading, "Condition", Counted)
    batcher = Batcher([Lane("recommend", lambda units: units, 10, 30)], cores=2)
    woken = 0  # the start of a thread is an event as well

    async def check() -> None:
        for unit in range(5):
            results, _ = await batcher.submit("recommend", [unit], [1])
            assert results == [unit]
            await asyncio.sleep(0.05)  # until the thread waits again; what comes before that does wake the others

    asyncio.run(asyncio.wait_for(check(), 20))
    monkeypatch.undo()
    counted = woken
    batcher.close()
    assert counted < 10, "when a request comes, not when its batch is done as well"
