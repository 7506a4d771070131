"""Jobs: reindexing and retraining, processes with low priority that write their progress to a file; and comparisons."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from prometheus_client import Counter

from index.catalogue.locks import one_at_a_time
from seqrec.data.files import write_text
from seqrec.errors import DeadlineExceeded, Overloaded, SeqrecError, SnapshotError
from seqrec.hybrid.event_counts import PAIR_BYTES
from seqrec.runtime.threads import variables
from service.live.state import LiveState
from service.settings import Settings

log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed"]
Command = Literal["reindex", "retrain"]
_ID = re.compile(r"[0-9a-f]{12}")
_NICE = 10
_KEEP = 100
"""How many jobs are kept."""
_LOOK_BACK = 8
"""How many of the newest jobs are checked for one that is running."""
_END_SECONDS = 5.0
_BEGIN_SECONDS = 60.0
"""How long a job's process may take before it reports that it runs."""
CHANGED_BYTES = 256 * 1024 * 1024
"""Bytes of changes below which none of them starts a reindex by their size."""
_AGAIN_SECONDS = 300.0
"""Between two automatic reindexes or retrainings."""
_LOOK_SECONDS = 10.0
"""How often it is looked whether a retraining is due."""
COMPARE_SECONDS = 120.0
_COMPARE_AGAIN_SECONDS = 5.0


class JobNotFound(SeqrecError):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"no reindex job {job_id!r}; POST /reindex starts one and answers with its id")


@dataclass(frozen=True)
class Job:
    """`done` and `total` count items; `snapshot` is what it made and published; `error` why it failed."""

    id: str
    state: State
    done: int = 0
    total: int | None = None
    snapshot: str | None = None
    error: str | None = None


class JobRunner:
    """Starts a command, one at a time among the workers of a host. Safe to use from several threads.

    Across hosts the job's lease decides: a second job fails with a message that one is running.
    """

    def __init__(self, settings: Settings, command: Command = "reindex", started: Counter | None = None) -> None:
        """`started` counts jobs by who started them."""
        self._settings = settings
        self.command_of = command
        self._directory = settings.home / "jobs"
        self._started = started
        self._lock = threading.Lock()
        self._running: tuple[str, subprocess.Popen[bytes]] | None = None

    def start(self, by: str = "request") -> Job:
        """A new job, or the one that is running: its snapshot will have what a second one's would.

        Raises SnapshotError where none can be started.
        """
        with self._lock:
            try:
                with one_at_a_time(self._directory / "start.lock", wait=True):
                    return self.running_job() or self._begin(by)
            except OSError as error:
                raise SnapshotError(f"no job can be started in {self._directory}: {error.strerror}") from error

    def jobs(self) -> list[Job]:
        """The newest jobs, newest first."""
        paths = sorted(self._directory.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        own = [path for path in paths[:_LOOK_BACK] if _ID.fullmatch(path.stem) and command_of(path) == self.command_of]
        return [self.job(path.stem) for path in own]

    def running_job(self) -> Job | None:
        return next((job for job in self.jobs() if job.state in ("queued", "running")), None)

    def _begin(self, by: str) -> Job:
        for old in sorted(self._directory.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-_KEEP]:
            old.with_suffix(".log").unlink(missing_ok=True)
            old.unlink(missing_ok=True)
        job_id = uuid.uuid4().hex[:12]
        path = self._directory / f"{job_id}.json"
        write_text(path, json.dumps({"id": job_id, "command": self.command_of, "state": "queued"}))
        with path.with_suffix(".log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "seqrec", self.command_of, "--job", str(path)],
                env=_environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C goes to the service, which then ends the job
            )
        if self._running is not None:  # its file says that it has ended, and its process is about to
            with suppress(subprocess.TimeoutExpired):
                self._running[1].wait(_END_SECONDS)
        _lower_priority(process.pid)
        self._running = (job_id, process)
        if self._started is not None:
            self._started.labels(by).inc()
        log.info("%s job %s started as process %d (%s)", self.command_of, job_id, process.pid, by)
        return Job(job_id, "queued")

    def job(self, job_id: str) -> Job:
        """Progress of a job. Raises JobNotFound."""
        path = self._directory / f"{job_id}.json"
        if not _ID.fullmatch(job_id) or not path.is_file():
            raise JobNotFound(job_id)
        job, process_id = _read(path)
        if job.state in ("queued", "running"):
            ended = self._ended(path, job.state, process_id)
            job, _ = _read(path)  # again: a job that has just ended has written its final state
            if ended is not None and job.state in ("queued", "running"):
                error = f"{ended}; see jobs/{job_id}.log in SEQREC_HOME"
                return replace(job, state="failed", error=error)
        return job

    def close(self, timeout: float = 5.0) -> None:
        """End the running job. What it had not published is lost; the next job starts over."""
        with self._lock:
            if self._running is None or self._running[1].poll() is not None:
                return
            job_id, process = self._running
            log.info("ending %s job %s", self.command_of, job_id)
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _ended(self, path: Path, state: State, process_id: int | None) -> str | None:
        """How the job's process ended; None while it runs. Another worker or an earlier service may have started it."""
        running = self._running
        if running is not None and running[0] == path.stem:
            code = running[1].poll()
            return None if code is None else f"its process ended with exit code {code} before it was done"
        if state == "queued" and time.time() - path.stat().st_mtime < _BEGIN_SECONDS:
            return None  # another worker has started it; it has not reported yet
        try:
            if process_id is not None and path.stem in " ".join(psutil.Process(process_id).cmdline()):
                return None
        except psutil.Error:
            pass
        return "its process ended before it was done"


class AutoReindexer:
    """Starts a reindex when much has changed since the snapshot.

    The delta is searched by brute force, and the log has every change, also those that later ones replaced, until a
    newer snapshot lets it be compacted. Pairs of events since the snapshot are in the memory of each worker. Both the
    number of changes of items and the bytes of all count.
    """

    def __init__(self, reindexer: JobRunner, share: float, minimum: int) -> None:
        """`share` of the snapshot's items or bytes, 0 for never; never for fewer changes than `minimum`."""
        self._reindexer = reindexer
        self._share = share
        self._minimum = minimum
        self._next = 0.0

    def maybe_start(self, state: LiveState) -> None:
        """To be called regularly, while the newest published snapshot is served."""
        manifest = state.snapshot.manifest
        size = sum(record.size for record in manifest.files.values())
        many = state.changes >= max(self._minimum, self._share * len(state.snapshot.item_ids))
        changed_bytes = state.changed_bytes + PAIR_BYTES * state.counts.changed_pairs
        large = changed_bytes >= max(CHANGED_BYTES, self._share * size)
        if not self._share or not (many or large):
            return
        if time.monotonic() < self._next:
            return
        # A failed job is tried again; after a successful one there are few changes left.
        self._next = time.monotonic() + _AGAIN_SECONDS
        log.info(
            "%d changes of items, %.0f MB with pairs of events, since snapshot %s: starting a reindex",
            state.changes,
            changed_bytes / 1e6,
            state.snapshot.id,
        )
        self._reindexer.start("automatic")


class AutoRetrainer:
    """Starts a retraining when the last one began long enough ago, on whichever host that was."""

    def __init__(self, retrainer: JobRunner, home: Path, every: float | None) -> None:
        """`every`: seconds; None: never."""
        self._retrainer = retrainer
        self._last = home / "retrain" / "last.json"
        self._every = every
        self._next = 0.0

    def maybe_start(self, state: LiveState) -> None:
        """To be called regularly, while the newest published snapshot is served."""
        if self._every is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK_SECONDS
        if time.time() < self._last_began(state) + self._every:
            return
        # Set before it starts: a job that fails immediately is not retried immediately.
        self._next = time.monotonic() + _AGAIN_SECONDS
        self._retrainer.start("automatic")

    def _last_began(self, state: LiveState) -> float:
        """When `seqrec retrain` last began; before the first time, when the served snapshot was made."""
        try:
            return float(json.loads(self._last.read_text(encoding="utf-8"))["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return datetime.fromisoformat(state.snapshot.manifest.created).timestamp()


def command_of(path: Path) -> str:
    """Of a job's file; those of earlier versions have none."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("command", "reindex"))
    except (OSError, ValueError):
        return "reindex"


def _read(path: Path) -> tuple[Job, int | None]:
    """A job's file, and the id of its process once it has started."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    known = ("state", "done", "total", "snapshot", "error")
    return Job(path.stem, **{name: record[name] for name in known if name in record}), record.get("process")


def _environment(settings: Settings) -> dict[str, str]:
    """The environment of a command that works beside the service on the same stores."""
    return os.environ | {
        "SEQREC_HOME": str(settings.home),
        "SEQREC_REDIS_URL": settings.redis_url or "",
        "SEQREC_MILVUS_URL": settings.milvus_url or "",
        "SEQREC_ACCEPT_WEAKER": str(settings.accept_weaker).lower(),
        **variables(settings.reindex_threads),
    }


async def compare_snapshots(settings: Settings, before: str, after: str, users: int, k: int) -> dict[str, Any]:
    """The answer of `seqrec compare --json`, of a process of its own: a second model needs memory and cores.

    It has low priority and ends with the request. Raises Overloaded while another one runs on this host,
    DeadlineExceeded after `COMPARE_SECONDS`, and SnapshotError with the reason of the command.
    """
    with ExitStack() as held:
        try:
            held.enter_context(one_at_a_time(settings.home / "jobs" / "compare.lock", wait=False))
        except SnapshotError:
            raise Overloaded("snapshots are being compared for somebody else", _COMPARE_AGAIN_SECONDS) from None
        except OSError as error:
            raise SnapshotError(f"nothing can be compared in {settings.home}: {error.strerror}") from error
        return await _run_compare(settings, before, after, "--users", str(users), "--k", str(k))


def _lower_priority(process_id: int) -> None:
    """Of a process in a session of its own.

    Linux may share the cores by session first (autogroups, man 7 sched): then nice alone would change nothing.
    """
    with suppress(OSError):  # it may have ended
        os.setpriority(os.PRIO_PROCESS, process_id, _NICE)
        Path(f"/proc/{process_id}/autogroup").write_text(str(_NICE), encoding="ascii")


async def _run_compare(settings: Settings, *arguments: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "seqrec", "compare", *arguments, "--json"),
        env=_environment(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    _lower_priority(process.pid)
    try:
        output, errors = await asyncio.wait_for(process.communicate(), COMPARE_SECONDS)
    except TimeoutError:
        raise DeadlineExceeded(
            f"two snapshots were not compared within {COMPARE_SECONDS:.0f} s; `seqrec compare` has no limit"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode("utf-8", "replace").strip().splitlines() or ["it was ended"]
        raise SnapshotError(f"they cannot be compared: {lines[-1].removeprefix('seqrec compare: ')}")
    answer: dict[str, Any] = json.loads(output)
    return answer
