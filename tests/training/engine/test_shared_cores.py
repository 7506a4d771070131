from __future__ import annotations

import os
import time

import pytest

from training.engine.shared_cores import PERIOD, ThreadAdapter, cpu_seconds


class Machine:
    """Cores whose time is shared by this process and others, as cumulative seconds."""

    def __init__(self, cores: int) -> None:
        self.cores, self.now, self.busy, self.own = cores, 0.0, 0.0, 0.0

    def work(self, own: float, others: float, seconds: float = PERIOD) -> None:
        """So many cores are used, for so long."""
        self.now += seconds
        self.own += own * seconds
        self.busy += (own + others) * seconds

    def read(self) -> tuple[float, float, float]:
        return self.busy, self.own, self.now * self.cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    return Machine(4)


def test_threads_follow_the_cores_that_others_leave(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    used: list[int] = []
    adapt = ThreadAdapter(4, used.append, lambda: machine.now, machine.read)
    for own, others in [(3.8, 0.1), (2.5, 1.5), (2.0, 1.0), (1.0, 3.0), (0.5, 3.5), (1.0, 0.0), (4.0, 0.0)]:
        machine.work(own, others)
        adapt()
    assert used == [2, 3, 1, 4]
    assert "computing with 2 of 4 threads, since other processes use 1.5 cores" in caplog.text


def test_a_machine_without_other_load_keeps_its_threads(machine: Machine) -> None:
    used: list[int] = []
    adapt = ThreadAdapter(4, used.append, lambda: machine.now, machine.read)
    for _ in range(20):
        machine.work(own=2.5, others=0.2)
        adapt()
    assert used == []


def test_it_looks_every_few_seconds_only(machine: Machine) -> None:
    used: list[int] = []
    adapt = ThreadAdapter(4, used.append, lambda: machine.now, machine.read)
    for _ in range(10):
        machine.work(own=1.0, others=3.0, seconds=PERIOD / 4)
        adapt()
    assert used == [1]


def test_the_time_of_this_process_is_part_of_that_of_the_machine() -> None:
    before, began = cpu_seconds(), time.monotonic()
    while time.monotonic() - began < 0.3:
        pass
    busy, own, total = (now - then for now, then in zip(cpu_seconds(), before, strict=True))
    assert own > 0
    assert total >= busy
