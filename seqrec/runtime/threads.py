"""How many threads compute, and how they wait: decided once, from the cores that are really there.

More threads than cores make a machine many times slower, and so does a container's limit that nobody looks at: torch,
OpenMP and FAISS count the machine's processors. OpenMP reads the environment when a library is first loaded, so this
module imports none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What torch, FAISS, MKL and OpenBLAS read."""
SPINS = 10_000
"""Of a thread of GNU's OpenMP that waits, before it sleeps."""
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Threads:
    """How many compute in one process, and what decided that."""

    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.count} thread{'s' if self.count > 1 else ''} ({self.why})"


def use_passive_waits(environment: MutableMapping[str, str] = os.environ) -> None:
    """Threads that wait for one another sleep, after a moment, unless OMP_WAIT_POLICY says otherwise.

    Spinning makes a shared machine several times slower (measured: a training step beside another busy process took
    3.3 s spinning, 0.9 s asleep). Some 0.1 ms of it cost nothing to speak of, and spare a core that is needed again at
    once from being woken (a history of 250 tokens on two cores: 62 ms without, 43 ms with it).
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))


def choose(asked: int = 0, workers: int = 1, environment: Mapping[str, str] = os.environ) -> Threads:
    """For each of `workers` processes: `asked` where it is not 0, else OMP_NUM_THREADS, else its share of the cores."""
    if asked:
        return Threads(asked, "as set")
    try:
        # One number for each level of nested parallelism; the first is the one that is used here.
        said = int(environment.get("OMP_NUM_THREADS", "").partition(",")[0])
    except ValueError:
        said = 0
    if said > 0:
        return Threads(said, "OMP_NUM_THREADS")
    found = cores()
    among = f" among {workers} workers" if workers > 1 else ""
    return Threads(max(1, found // workers), f"{found} core{'s' if found > 1 else ''}{among}")


def variables(count: int) -> dict[str, str]:
    """What a process that is started with this in its environment computes with."""
    return {name: str(count) for name in COUNTS}


def use(threads: Threads, export_env: bool = False) -> None:
    """From now on, in the libraries that are loaded. `export_env`: also in what this process loads and starts later.

    What is handed on stands in the environment, where the next one to choose takes it for somebody's wish.
    """
    if export_env:
        os.environ.update(variables(threads.count))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads.count)
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(threads.count)


def cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS, topology: Path = TOPOLOGY) -> int:
    """Physical cores that this process may use, within its container's limit; at least 1.

    Two threads on one core's two hardware threads multiply no faster than one. A limit of 2.5 processors is 2: what
    is over the limit makes all threads stand still until the next period.
    """
    found = _physical(os.sched_getaffinity(0), topology)
    limit = quota(cgroups, own)
    return found if limit is None else max(1, min(found, int(limit)))


def quota(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float | None:
    """Processors that the control groups of this process allow, the least of all levels; None: no limit."""
    limits = []
    for line in _lines(own):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            directory, read = cgroups, _version_2
        elif "cpu" in controllers.split(","):
            directory, read = cgroups / "cpu", _version_1
        else:
            continue
        # Within a container the path may be that of the host; then only the container's own group is to be seen.
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
    return len({said or str(processor) for processor, said in siblings.items()})


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
