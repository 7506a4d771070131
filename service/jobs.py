"""Reindex jobs: each is a process of its own, with low priority, that writes its progress into a file."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from seqrec.files import write_text
from service.problems import JobNotFound
from service.settings import Settings

log = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed"]
_ID = re.compile(r"[0-9a-f]{12}")
_NICE = 10


@dataclass(frozen=True)
class Job:
    """`done` and `total` count items; `snapshot` is what it made and published; `error` why it failed."""

    id: str
    state: State
    done: int = 0
    total: int | None = None
    snapshot: str | None = None
    error: str | None = None


class Reindexer:
    """Starts `seqrec reindex`, one at a time. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = settings.home / "jobs"
        self._lock = threading.Lock()
        self._running: tuple[str, subprocess.Popen[bytes]] | None = None

    def start(self) -> Job:
        """A new job, or the one that is running: its snapshot will hold what a second one's would."""
        with self._lock:
            if self._running is not None and self._running[1].poll() is None:
                return self.job(self._running[0])
            job_id = uuid.uuid4().hex[:12]
            self._directory.mkdir(parents=True, exist_ok=True)
            path = self._directory / f"{job_id}.json"
            write_text(path, json.dumps({"id": job_id, "state": "queued"}))
            threads = str(self._settings.reindex_threads)
            environment = os.environ | {
                "SEQREC_HOME": str(self._settings.home),
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
            }
            with path.with_suffix(".log").open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "seqrec", "reindex", "--job", str(path)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C is for the service, which then ends the job itself
                )
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
            self._running = (job_id, process)
            log.info("reindex job %s started as process %d", job_id, process.pid)
            return Job(job_id, "queued")

    def job(self, job_id: str) -> Job:
        """How far a job is. Raises JobNotFound."""
        path = self._directory / f"{job_id}.json"
        if not _ID.fullmatch(job_id) or not path.is_file():
            raise JobNotFound(job_id)
        job, process_id = _read(path)
        if job.state in ("queued", "running"):
            ended = self._ended(job_id, process_id)
            job, _ = _read(path)  # again: what ended since the first look has written its last word
            if ended is not None and job.state in ("queued", "running"):
                error = f"{ended}; {job_id}.log beside the job's file says more"
                return replace(job, state="failed", error=error)
        return job

    def close(self, timeout: float = 5.0) -> None:
        """End the running job. What it had not published is not served; the next one begins anew."""
        with self._lock:
            if self._running is None or self._running[1].poll() is not None:
                return
            job_id, process = self._running
            log.info("ending reindex job %s", job_id)
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _ended(self, job_id: str, process_id: int | None) -> str | None:
        """How the job's process ended; None while it runs. A job may be that of an earlier service."""
        running = self._running
        if running is not None and running[0] == job_id:
            code = running[1].poll()
            return None if code is None else f"its process ended with exit code {code} before it was done"
        try:
            if process_id is not None and job_id in " ".join(psutil.Process(process_id).cmdline()):
                return None
        except psutil.Error:
            pass
        return "its process ended before it was done"


def _read(path: Path) -> tuple[Job, int | None]:
    """A job's file, and the id of its process once it has begun."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    known = ("state", "done", "total", "snapshot", "error")
    return Job(path.stem, **{name: record[name] for name in known if name in record}), record.get("process")
