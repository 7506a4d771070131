"""The number of compute threads, from the cores that the process may use, and how threads wait.

torch, OpenMP and FAISS count the processors of the machine. More threads than cores, or than a container's limit
allows, are many times slower. OpenMP reads the environment when a library is loaded, so this module imports none of
them. `loky.cpu_count` does not replace `cores`: it reads the limit of the root control group only, and rounds it up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""The variables that torch, FAISS, MKL and OpenBLAS read."""
SPINS = 10_000
"""Iterations that a waiting thread of GNU OpenMP spins before it sleeps, about 0.1 ms."""
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Threads:
    """The number of compute threads of a process, and the reason for it."""

    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.count} thread{'s' if self.count > 1 else ''} ({self.why})"


def use_passive_waits(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes waiting threads sleep after a short spin, unless OMP_WAIT_POLICY is set.

    Spinning makes a shared machine several times slower: a training step next to another busy process took 3.3 s with
    it, 0.9 s without. A spin of 0.1 ms costs little and saves waking a core that is needed again soon (a history of 250
    tokens on two cores: 43 ms instead of 62 ms).
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))


def choose(requested: int = 0, workers: int = 1, environment: Mapping[str, str] = os.environ) -> Threads:
    """For each of `workers` processes: `requested` if not 0, else OMP_NUM_THREADS, else its share of the cores."""
    if requested:
        return Threads(requested, "as set")
    try:
        # A list has a number for each level of nested parallelism; the first level is used here.
        configured = int(environment.get("OMP_NUM_THREADS", "").partition(",")[0])
    except ValueError:
        configured = 0
    if configured > 0:
        return Threads(configured, "OMP_NUM_THREADS")
    found = cores()
    shared = f" among {workers} workers" if workers > 1 else ""
    return Threads(max(1, found // workers), f"{found} core{'s' if found > 1 else ''}{shared}")


def variables(count: int) -> dict[str, str]:
    """The environment variables of a process that is to compute with `count` threads."""
    return {name: str(count) for name in COUNTS}


def use(threads: Threads, export_env: bool = False) -> None:
    """Sets the number of threads of the libraries that are loaded.

    `export_env` also sets it for libraries and processes that are loaded or started later. It does so by environment
    variables, so `choose` in those processes treats it as set by the user.
    """
    if export_env:
        os.environ.update(variables(threads.count))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads.count)
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(threads.count)


def cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS, topology: Path = TOPOLOGY) -> int:
    """Physical cores that this process may use, within the limit of its container; at least 1.

    Two hardware threads of a core multiply matrices no faster than one. A limit of 2.5 processors counts as 2: beyond
    the limit all threads are paused until the next period.
    """
    found = _physical(os.sched_getaffinity(0), topology)
    limit = quota(cgroups, own)
    return found if limit is None else max(1, min(found, int(limit)))


def quota(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float | None:
    """The processors that the control groups of this process allow, the minimum of all levels; None: no limit."""
    limits = []
    for line in _lines(own):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            directory, read = cgroups, _version_2
        elif "cpu" in controllers.split(","):
            directory, read = cgroups / "cpu", _version_1
        else:
            continue
        # In a container the path may be that of the host, and only the container's group is visible.
        path = directory / group.strip("/")
        levels = [path, *path.parents]
        limits += [read(level) for level in levels if level == directory or directory in level.parents]
    return min((limit for limit in limits if limit is not None), default=None)


def _version_2(group: Path) -> float | None:
    words = " ".join(_lines(group / "cpu.max")).split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _version_1(group: Path) -> float | None:
    limit, period = ("".join(_lines(group / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return int(limit) / int(period) if limit and period and int(limit) > 0 else None


def _physical(processors: set[int], topology: Path) -> int:
    siblings = {
        processor: "".join(_lines(topology / f"cpu{processor}" / "topology" / "thread_siblings_list"))
        for processor in processors
    }
    return len({listed or str(processor) for processor, listed in siblings.items()})


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
