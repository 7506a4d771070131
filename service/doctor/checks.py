"""The checks of `seqrec doctor`. Each yields findings and changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil
import redis

from index.catalogue.open import CATALOGUE_FILE, open_catalogue
from index.keys.open import open_keys
from seqrec.errors import InputError, SeqrecError
from seqrec.runtime.threads import COUNTS, cores, quota
from service.settings import Settings, is_loopback

Level = Literal["ok", "note", "warning", "error"]
_GB = 1e9
_LIBRARIES = ("torch", "numpy", "scipy", "tokenizers", "safetensors", "pydantic", "fastapi", "uvicorn", "redis")
_EXTRAS = {
    "train": ("accelerate", "matplotlib", "tensorboard", "tomli_w", "transformers"),
    "shop": ("pyarrow", "charset_normalizer", "dateutil"),
}
_LITTLE_MEMORY = 1.0
_LITTLE_DISK = 1.0
_SECONDS = 2.0
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Finding:
    """`error`: seqrec does not work like this. `warning`: it works worse. `advice`: what to do."""

    check: str
    level: Level
    text: str
    advice: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def versions(settings: Settings) -> Iterator[Finding]:
    python = platform.python_version()
    installed = ["seqrec", *_LIBRARIES]
    found = []
    for name in installed:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding("versions", "error", f"{name} is not installed", f"pip install {name}")
    yield Finding("versions", "ok", f"Python {python}, {', '.join(found)}; {platform.platform(terse=True)}")
    if find_spec("faiss") is None:
        advice = "pip install 'seqrec[cpu]', or 'seqrec[gpu]' for a GPU"
        yield Finding("versions", "error", "faiss, which searches vectors, is not installed", advice)
    for extra, names in _EXTRAS.items():
        missing = [name for name in names if find_spec(name) is None]
        if missing:
            what = "training" if extra == "train" else "reading a shop's files"
            text = f"without {', '.join(missing)} there is no {what}"
            yield Finding("versions", "note", text, f"pip install 'seqrec[{extra}]', unless this machine only serves")


def processors(settings: Settings) -> Iterator[Finding]:
    usable, limit = cores(), quota()
    text = f"{usable} cores for this process of {psutil.cpu_count(logical=False) or '?'} physical ones"
    text += "" if limit is None else f"; the control group allows {limit:g} processors"
    if limit is not None and limit < 1:
        yield Finding("cores", "warning", text, "answers pause when the share is used up; allow at least one processor")
    else:
        yield Finding("cores", "ok", text)
    for name in COUNTS:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > usable:
            text = f"{name}={value} is more than {usable} cores"
            yield Finding("cores", "warning", text, f"unset {name}: threads wait for cores")
    load = os.getloadavg()[0]
    if load > 1.5 * usable:
        text = f"the load is {load:.1f} on {usable} cores"
        yield Finding("cores", "warning", text, "other programs use the cores: latency will be higher and vary")


def memory(settings: Settings) -> Iterator[Finding]:
    machine = psutil.virtual_memory()
    free, total = machine.available / _GB, machine.total / _GB
    limit = memory_limit(machine.total)
    text = f"{free:.1f} of {total:.1f} GB are available"
    if limit is not None:
        text += f"; the control group allows {limit / _GB:.1f} GB"
        free = min(free, limit / _GB)
    if free < _LITTLE_MEMORY:
        advice = "a worker takes about 0.5 GB and the vectors; free memory, or SEQREC_WORKERS=1"
        yield Finding("memory", "warning", text, advice)
    else:
        yield Finding("memory", "ok", text)


def memory_limit(total: int, files: tuple[Path, ...] = MEMORY_LIMITS) -> int | None:
    """Bytes that the control group of a container allows; None without a limit below the machine's memory."""
    for file in files:
        with suppress(OSError, ValueError):
            limit = int(file.read_text(encoding="ascii"))
            return limit if limit < total else None
    return None


def home(settings: Settings) -> Iterator[Finding]:
    """Permissions and space of SEQREC_HOME, or of the nearest folder above that exists."""
    path = settings.home.absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        yield Finding("home", "error", f"{there} is not a directory", "set SEQREC_HOME to a directory")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        advice = f"chown or chmod it for user {os.getuid()}, or set SEQREC_HOME to a directory that is writable"
        yield Finding("home", "error", f"{there} is not writable", advice)
    for file in sorted(path.glob("*.sqlite3*")):
        if not os.access(file, os.R_OK | os.W_OK):
            yield Finding(
                "home", "error", f"{file} is not readable and writable", "it belongs to another user: chown it"
            )
    free = shutil.disk_usage(there).free / _GB
    text = f"{settings.home}{'' if there == path else ' (does not exist yet)'}: {free:.1f} GB are free"
    if free < _LITTLE_DISK:
        yield Finding("home", "warning", text, "a reindex writes a second copy of all vectors; free some space")
    else:
        yield Finding("home", "ok", text)


def stores(settings: Settings) -> Iterator[Finding]:
    location = settings.redis_url or settings.home
    if settings.redis_url is None and not (settings.home / CATALOGUE_FILE).is_file():
        text = f"no catalogue in {settings.home}"
        yield Finding("stores", "note", text, "`seqrec demo`, `seqrec up` or `seqrec index build` makes one")
    else:
        try:
            with closing(open_catalogue(location, accept_weaker=settings.accept_weaker)) as catalogue:
                items, publications = catalogue.count(), catalogue.publications()
                with closing(open_keys(location, settings.accept_weaker)) as ring:
                    keys = len(ring.all())
        except SeqrecError as error:
            yield Finding(
                "stores", "error", f"the catalogue cannot be opened: {error}", "docs/operations.md lists causes"
            )
        else:
            served = publications[0].snapshot_id if publications else None
            yield Finding(
                "stores", "ok", f"catalogue with {items:,} items, {keys} API keys; served: {served or 'nothing'}"
            )
            if served is None:
                yield Finding("stores", "warning", "no snapshot is published", "seqrec index build --publish")
            elif not (settings.home / "snapshots" / served).is_dir():
                text = f"the published snapshot {served} is not in {settings.home}"
                yield Finding("stores", "error", text, "copy it from the host that made it, or `seqrec reindex`")
            if not keys and not settings.anonymous:
                text = f"there are no API keys, and {settings.host} can be reached by others: `seqrec serve` refuses"
                yield Finding("stores", "error", text, "seqrec keys create NAME --scope admin")
    for name in ("cache_url", "limits_url"):
        url = getattr(settings, name)
        if url is not None:
            yield _ping(f"SEQREC_{name.upper()}", url)


def _ping(name: str, url: str) -> Finding:
    try:
        with closing(redis.from_url(url, socket_connect_timeout=_SECONDS, socket_timeout=_SECONDS)) as client:
            client.ping()
    except (redis.RedisError, OSError, ValueError) as error:
        return Finding("stores", "warning", f"{name} does not answer: {error}", "start it, or unset the variable")
    return Finding("stores", "ok", f"{name} answers")


def address(settings: Settings) -> Iterator[Finding]:
    where = f"{settings.host}:{settings.port}"
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            text = f"{where}: {error.strerror}"
            yield Finding("address", "warning", text, "is a service running already? Otherwise set SEQREC_PORT")
            return
    reach = "only this machine reaches it" if is_loopback(settings.host) else "others reach it"
    yield Finding("address", "ok", f"{where} is free; {reach}")


def gpu(settings: Settings) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        yield Finding("gpu", "ok", f"{names}; CUDA {torch.version.cuda}")
    elif Path("/proc/driver/nvidia/version").exists():
        text = f"there is an NVIDIA driver, and torch {torch.__version__} does not see a GPU"
        yield Finding("gpu", "warning", text, "install torch with CUDA and 'seqrec[gpu]' (docs/gpu.md)")
    elif settings.device == "cuda":
        yield Finding("gpu", "error", "SEQREC_DEVICE=cuda, and there is no GPU", "unset SEQREC_DEVICE")
    else:
        yield Finding("gpu", "ok", "none; the CPU computes")


CHECKS: tuple[Check, ...] = (versions, processors, memory, home, stores, address, gpu)


def examine(settings: Settings) -> list[Finding]:
    """All findings. A check that fails itself is an error, and the others go on."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(settings)
        except (OSError, InputError) as error:
            found.append(Finding(check.__name__, "error", str(error), "this check could not be made"))
    return found
