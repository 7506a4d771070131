from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqrec.runtime import threads


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Four processors, two on each core, and no limit: cgroups/, own and topology/ of `cores`."""
    for processor in range(4):
        directory = tmp_path / "topology" / f"cpu{processor}" / "topology"
        directory.mkdir(parents=True)
        (directory / "thread_siblings_list").write_text("0,2\n" if processor % 2 == 0 else "1,3\n")
    (tmp_path / "cgroups").mkdir()
    (tmp_path / "own").write_text("")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def quota(machine: Path) -> float | None:
    return threads.quota(machine / "cgroups", machine / "own")


def cores(machine: Path, monkeypatch: pytest.MonkeyPatch, processors: set[int]) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: processors)
    return threads.cores(machine / "cgroups", machine / "own", machine / "topology")


@pytest.mark.parametrize(("processors", "expected"), [({0, 1, 2, 3}, 2), ({0, 1}, 2), ({0, 2}, 1), ({3}, 1)])
def test_hardware_threads_of_one_core_are_one(
    machine: Path, monkeypatch: pytest.MonkeyPatch, processors: set[int], expected: int
) -> None:
    assert cores(machine, monkeypatch, processors) == expected


def test_without_a_topology_every_processor_is_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores(tmp_path, monkeypatch, {0, 1, 2}) == 3


def test_version_2_is_limited_by_the_least_of_all_levels(machine: Path) -> None:
    write(machine / "own", "0::/shop/web\n")
    write(machine / "cgroups/shop/web/cpu.max", "max 100000\n")
    assert quota(machine) is None
    write(machine / "cgroups/shop/cpu.max", "250000 100000\n")
    assert quota(machine) == 2.5
    write(machine / "cgroups/shop/web/cpu.max", "150000 100000\n")
    assert quota(machine) == 1.5


def test_within_a_container_the_group_is_at_the_root(machine: Path) -> None:
    write(machine / "own", "0::/kubepods/pod7/of-the-host\n")
    write(machine / "cgroups/cpu.max", "100000 100000\n")
    assert quota(machine) == 1


def test_version_1(machine: Path) -> None:
    write(machine / "own", "4:memory:/a\n3:cpu,cpuacct:/docker/1\n0::/\n")
    write(machine / "cgroups/cpu/docker/1/cpu.cfs_quota_us", "-1\n")
    write(machine / "cgroups/cpu/docker/1/cpu.cfs_period_us", "100000\n")
    assert quota(machine) is None
    write(machine / "cgroups/cpu/docker/1/cpu.cfs_quota_us", "50000\n")
    assert quota(machine) == 0.5


@pytest.mark.parametrize(("limit", "expected"), [("50000", 1), ("100000", 1), ("199999", 1), ("900000", 2)])
def test_a_limit_is_rounded_down_but_never_to_nothing(
    machine: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    write(machine / "own", "0::/\n")
    write(machine / "cgroups/cpu.max", f"{limit} 100000\n")
    assert cores(machine, monkeypatch, {0, 1, 2, 3}) == expected


def test_here_there_is_at_least_one() -> None:
    assert 1 <= threads.cores() <= len(os.sched_getaffinity(0))


def test_what_is_asked_for_comes_first_then_the_variable_then_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)
    assert threads.choose(3, 2, {"OMP_NUM_THREADS": "5"}).count == 3
    assert threads.choose(0, 2, {"OMP_NUM_THREADS": "5,2"}).count == 5
    assert threads.choose(0, 2, {}) == threads.Threads(4, "8 cores among 2 workers")
    assert str(threads.choose(0, 1, {})) == "8 threads (8 cores)"


def test_workers_beyond_the_cores_have_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    assert threads.choose(0, 5, {}).count == 1


@pytest.mark.parametrize("said", ["", "many", "0"])
def test_a_variable_that_says_nothing_is_passed_over(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    assert threads.choose(0, 1, {"OMP_NUM_THREADS": said}).count == 2


def test_use_reaches_torch_and_what_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    for name in threads.COUNTS:
        monkeypatch.setenv(name, "1")
    try:
        threads.use(threads.Threads(2, "as set"))
        assert torch.get_num_threads() == 2
        assert os.environ["OMP_NUM_THREADS"] == "1"
        threads.use(threads.Threads(2, "as set"), export_env=True)
        assert [os.environ[name] for name in threads.COUNTS] == ["2", "2"]
    finally:
        torch.set_num_threads(before)


def test_waiting_threads_sleep_by_default() -> None:
    environment: dict[str, str] = {}
    threads.use_passive_waits(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(threads.SPINS)}
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    threads.use_passive_waits(environment)
    assert environment == {"OMP_WAIT_POLICY": "ACTIVE"}


def test_deciding_loads_no_library() -> None:
    code = "import sys, seqrec.runtime.threads; sys.exit(bool({'torch', 'faiss', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
