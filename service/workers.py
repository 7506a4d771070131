"""Several worker processes on one socket. Each is a complete service; one that dies is restarted.

The socket is bound once and every worker accepts from it, so a connection that waits when a worker dies is accepted by
another one. Counters are written to files that all workers share: any of them can answer /metrics for all.
"""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from seqrec.errors import InputError, NotReady
from service.metrics import SHARED_DIRECTORY, shared_directory
from service.settings import Settings
from service.starting import answered_meanwhile

log = logging.getLogger(__name__)

_HEALTHCHECK_SECONDS = 60
"""A worker that does not answer its supervisor for so long is killed and restarted."""
_ACCEPTING = "accepting.lock"
held_locks: list[IO[str]] = []
"""Locks that are kept for the life of the process, such as that on this worker's GPU."""


def worker_count(settings: Settings) -> int:
    """How many workers to run: as set, else one per GPU, else one. Raises InputError for more workers than GPUs."""
    gpus = _gpus(settings)
    if settings.workers is not None and gpus and settings.workers > gpus:
        raise InputError(
            f"{settings.workers} workers for {gpus} GPUs: a GPU serves one worker; set {gpus}, or SEQREC_DEVICE=cpu",
            "SEQREC_WORKERS",
        )
    return settings.workers or gpus or 1


def run_workers(settings: Settings, listeners: Sequence[socket.socket], count: int, options: dict[str, Any]) -> None:
    """Serve with `count` processes until SIGTERM or Ctrl-C, then finish the open requests. SIGHUP restarts one by one.

    `options` are uvicorn's. Raises NotReady if the workers cannot start.
    """
    directory = tempfile.mkdtemp(prefix="seqrec-workers-")
    os.environ[SHARED_DIRECTORY] = directory
    if _gpus(settings) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(_gpus(settings)))))
        for name in visible.split(","):
            (Path(directory) / f"gpu-{name}.lock").touch()
    config = uvicorn.Config(
        "service.app:worker_app",
        factory=True,
        workers=count,
        timeout_worker_healthcheck=_HEALTHCHECK_SECONDS,
        **options,
    )
    supervisor = Multiprocess(config, sockets=list(listeners))
    try:
        # What answers meanwhile speaks plain HTTP only.
        plain = listeners if settings.tls_cert is None else ()
        with answered_meanwhile(plain, lambda: _anybody_accepts(directory)):
            supervisor.run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise NotReady("the service could not start; its log has the reason")


def quiet_libraries() -> None:
    """Silence log lines of libraries that are of no use here."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which instructions it was compiled for
    logging.getLogger("torch").setLevel(logging.WARNING)  # it logs its caches when the program ends
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def end_with_parent() -> None:
    """End this worker when its supervisor has died; otherwise it would keep the port open."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        log.warning("the supervisor has ended; stopping this worker")
        end_worker()


def mark_accepting() -> None:
    """Tell the supervisor that this worker accepts connections, as long as its process lives."""
    directory = shared_directory()
    if directory is not None:
        lock = (Path(directory) / _ACCEPTING).open("a")
        fcntl.flock(lock, fcntl.LOCK_SH)
        held_locks.append(lock)


def _anybody_accepts(directory: str) -> bool:
    with (Path(directory) / _ACCEPTING).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def end_worker() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _gpus(settings: Settings) -> int:
    # Import torch only where needed: it takes seconds and 200 MB, and the supervisor computes nothing.
    if (settings.device or "cuda").partition(":")[0] != "cuda" or not list(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    if settings.device is not None and ":" in settings.device:  # exactly this one
        return 1
    import torch

    return torch.cuda.device_count()


def take_gpu() -> None:
    """Make one GPU visible: one that no other worker of this service uses. A dead worker's lock is free."""
    for path in sorted(Path(os.environ[SHARED_DIRECTORY]).glob("gpu-*.lock")):
        lock = path.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        held_locks.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = path.stem.removeprefix("gpu-")
        return
