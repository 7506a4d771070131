"""Encoding and counting in the processes of a Ray cluster, or of one that is started for the job.

Ray only carries work: which items are a batch, and which a block of pairs, is decided as in a single process. The
driver keeps each result as a shard, so nothing but the driver needs the home, and reads them back in their order.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.sparse import csr_array

from index.cluster.blocks import count_block
from index.cluster.shards import Arrays, Shards
from index.cluster.workers import Count
from seqrec.encoder import Encoder, Precision, Vectors, load_model
from seqrec.errors import ClusterError, InputError, SeqrecError
from seqrec.hybrid.cooccurrence import Pairs
from seqrec.runtime.threads import Threads, cores, use
from seqrec.text.item_text import ItemTokens, TokenizedItem

T = TypeVar("T")
log = logging.getLogger(__name__)

LOCAL = "local"
QUEUED = 2
"""Batches that an actor has at a time, so that it does not wait for the driver."""
RETRIES = 3
"""Of a process that dies, for lack of memory for example."""
CONNECT_SECONDS = 5.0
_VERSIONS = ("seqrec", "torch", "numpy")
_TOKEN = secrets.token_hex(32)
"""Of clusters that this process starts: Ray listens on all addresses, and runs what whoever has the token sends."""
_CLEAN_UP = """
read -r end || {
    sleep 2
    for process in /proc/[0-9]*; do
        ls -l "$process/fd" 2>/dev/null | grep -qF " $1/" && kill -9 "${process#/proc/}" 2>/dev/null
    done
}
while rm -rf "$1"; [ -e "$1" ]; do sleep 1; done
"""
"""Reads a pipe that ends with this process. If it was killed, most of Ray's processes end too; two helpers would wait a
minute for a server that is gone. They write logs in the directory."""


@dataclass(frozen=True)
class Cluster:
    """address: host:port of a cluster that this machine belongs to, or "local" to start one here for the job.

    actors: processes that encode; None: as many as there is room for. gpus_per_actor: 0: they encode on the CPU, with
    as many threads each as the job itself would.
    """

    address: str
    actors: int | None = None
    gpus_per_actor: float = 0


@contextmanager
def ray_workers(cluster: Cluster, encoder: Encoder, directory: Path) -> Iterator[RayWorkers]:
    """Workers that keep their shards in `directory` until `finish` is called.

    Raises InputError if Ray is not installed or the cluster has no room, ClusterError if it does not answer.
    """
    if cluster.gpus_per_actor and encoder.precision == "int8":
        raise InputError("int8 runs on the CPU only; use bfloat16 on a GPU", "precision")
    with _connected(cluster.address) as ray:
        yield RayWorkers(ray, cluster, encoder, Shards(directory))


class RayWorkers:
    """As `index.cluster.workers.Workers`. Methods raise ClusterError if processes die repeatedly."""

    def __init__(self, ray: Any, cluster: Cluster, encoder: Encoder, shards: Shards) -> None:
        self._ray, self._encoder, self._shards = ray, encoder, shards
        self._gpus = cluster.gpus_per_actor
        device, self._threads = ("cuda", 1) if self._gpus else ("cpu", torch.get_num_threads())
        self._setting = Setting(encoder.item_tower, _versions(), device, encoder.precision, self._threads)
        self._actors = self._check_room(cluster.actors)

    def encode(self, batches: Iterable[Sequence[TokenizedItem]], count: Count = lambda done: None) -> Iterator[Vectors]:
        actors: list[Any] = []

        def start() -> Sequence[Callable[..., Any]]:
            log.info("Ray encodes by %d actors, %d threads each", self._actors, self._threads)
            options = {"max_restarts": RETRIES, "max_task_retries": RETRIES}
            remote = self._ray.remote(num_cpus=self._threads, num_gpus=self._gpus, **options)(ItemEncoder)
            checkpoint = self._ray.put(_checkpoint_files(self._encoder.checkpoint.path))
            actors.extend(remote.remote(self._setting) for _ in range(self._actors))
            # In a list, Ray gives the actor the reference, and it reads the checkpoint once, or again if it restarts.
            return QUEUED * [partial(_call, actor.encode, [checkpoint]) for actor in actors]

        tokens = (ItemTokens.concatenate(batch) for batch in batches)
        keyed = ((batch, self._key(batch) if len(batch) else None) for batch in tokens)
        try:
            for batch, arrays in self._results(keyed, start):
                count(len(batch))
                yield arrays.get("vectors", np.zeros((0, self._encoder.dim), np.float32))
        finally:
            for actor in actors:  # counting needs their cores
                self._ray.kill(actor)

    def count_blocks(self, pairs: Pairs) -> Iterator[csr_array]:
        bounds = list(pairs.bounds())
        if len(bounds) < 2:  # about 100,000 events: nothing to share, and less work than starting a process
            yield from pairs.blocks()
            return
        digest = hashlib.sha256(repr((asdict(pairs.settings), pairs.items)).encode())
        for array in (pairs.rows, pairs.before, pairs.after, pairs.weights):
            digest.update(array.data)
        counted = digest.hexdigest()

        def start() -> Sequence[Callable[..., Any]]:
            remote = self._ray.remote(num_cpus=1, max_retries=RETRIES)(count_block)
            cpus = int(self._ray.cluster_resources().get("CPU", 1))
            return min(cpus * QUEUED, len(bounds)) * [partial(_call, remote, self._ray.put(pairs))]

        keyed = (((begin, end), f"{counted[:40]}-{begin}-{end}") for begin, end in bounds)
        for (begin, end), arrays in self._results(keyed, start):
            csr = arrays["values"], arrays["columns"], arrays["offsets"]
            yield csr_array(csr, shape=(end - begin, pairs.items))

    def finish(self) -> None:
        self._shards.remove()

    def _results(
        self, inputs: Iterable[tuple[T, str | None]], start: Callable[[], Sequence[Callable[..., Any]]]
    ) -> Iterator[tuple[T, Arrays]]:
        """Inputs with their results, in order. Shards of an earlier run are not computed again.

        inputs: each with the key of its shard; None: there is nothing to compute. `start` is called before the first
        that is computed, and gives functions that take an input and return a reference to its result. Each is called
        again when its last result is there.
        """
        free: list[Callable[..., Any]] | None = None
        found = 0
        running: dict[Any, tuple[str, Callable[..., Any]]] = {}
        ordered: deque[tuple[T, str | None]] = deque()  # not yet given out

        def wait() -> None:
            [done], _ = self._ray.wait(list(running), num_returns=1)
            key, slot = running.pop(done)
            self._shards.write(key, self._get(done))
            assert free is not None
            free.append(slot)

        def ready() -> Iterator[tuple[T, Arrays]]:
            unfinished = {key for key, _ in running.values()}
            while ordered and ordered[0][1] not in unfinished:
                value, key = ordered.popleft()
                arrays = {} if key is None else self._shards.read(key)
                if arrays is None:
                    raise ClusterError(f"a shard of this job was removed or altered meanwhile ({key}); start it again")
                yield value, arrays

        for value, key in inputs:
            if key is not None and self._shards.read(key) is None:
                free = list(start()) if free is None else free
                slots = len(free) + len(running)
                # Also bounds how far ahead of the oldest unfinished one the inputs are read.
                while not free or len(ordered) >= 2 * slots:
                    wait()
                    yield from ready()
                slot = free.pop(0)
                running[slot(value)] = key, slot
            elif key is not None:
                found += 1
            ordered.append((value, key))
            yield from ready()
        while running:
            wait()
            yield from ready()
        if found:
            log.info("%d results of an earlier run were not computed again", found)

    def _get(self, reference: Any) -> Arrays:
        exceptions = self._ray.exceptions
        try:
            arrays: Arrays = self._ray.get(reference)
        except exceptions.RayTaskError as error:
            raise ClusterError(f"a process on the Ray cluster failed: {_first_line(error.cause)}") from error
        except exceptions.RayError as error:
            raise ClusterError(
                f"a process on the Ray cluster ended unexpectedly, {RETRIES + 1} times: {_first_line(error)}. The same "
                "command continues where it stopped"
            ) from error
        return arrays

    def _key(self, batch: ItemTokens) -> str:
        digest = hashlib.sha256(repr(self._setting).encode())
        for array in (batch.offsets, batch.ids, batch.types):
            digest.update(array.data)
        return digest.hexdigest()[:40]

    def _check_room(self, requested: int | None) -> int:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        rooms = [int(node.get("CPU", 0) // self._threads) for node in nodes]
        if self._gpus:
            rooms = [min(room, int(node.get("GPU", 0) // self._gpus)) for room, node in zip(rooms, nodes, strict=True)]
        size = f"{self._threads} cores" + (f" and {self._gpus:g} GPUs" if self._gpus else "")
        has = f"{sum(node.get('CPU', 0) for node in nodes):g} cores, {sum(node.get('GPU', 0) for node in nodes):g} GPUs"
        if sum(rooms) < (requested or 1):
            advice = "" if self._gpus else "; OMP_NUM_THREADS sets the cores of each"
            raise InputError(
                f"the Ray cluster has room for {sum(rooms)} actors of {size} each, not {requested or 1}: it has {has}"
                f"{advice}",
                "actors",
            )
        return requested or sum(rooms)


@dataclass(frozen=True)
class Setting:
    """What decides the bits of a vector, apart from its batch."""

    item_tower: str
    versions: Mapping[str, str]
    device: str
    precision: Precision
    threads: int


class ItemEncoder:
    """The actor: encodes batches with a model of its own."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._encoder: Encoder | None = None

    def encode(self, checkpoint: Sequence[Any], batch: ItemTokens) -> Arrays:
        """vectors: float32 [n, dim]. checkpoint: the reference of its files."""
        if self._encoder is None:  # not in __init__, whose errors do not reach the driver as they are
            self._encoder = self._loaded(checkpoint[0])
        return {"vectors": self._encoder.encode_item_tokens(batch)}

    def _loaded(self, checkpoint: Any) -> Encoder:
        import ray

        setting = self._setting
        if setting.versions != _versions():
            raise ClusterError(f"it has {_versions()}, the job {dict(setting.versions)}; install the same versions")
        use(Threads(setting.threads, "as the job"))
        with tempfile.TemporaryDirectory(prefix="seqrec-checkpoint-") as directory:
            for name, content in ray.get(checkpoint).items():
                (Path(directory) / name).write_bytes(content)
            encoder = load_model(directory, setting.device, setting.precision)
        if encoder.item_tower != setting.item_tower:
            raise ClusterError("the checkpoint was changed while the job ran; start it again")
        return encoder


def _call(remote: Any, *arguments: Any) -> Any:
    return remote.remote(*arguments)


def _checkpoint_files(path: Path) -> dict[str, bytes]:
    lines = (path / "digest").read_text(encoding="utf-8").splitlines()
    names = chain(["digest"], (line.partition("  ")[2] for line in lines))
    return {name: (path / name).read_bytes() for name in names}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _VERSIONS}


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected. A cluster that was started here ends with this process, even if it is killed."""
    # Ray reads these when it is imported or starts.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change in later versions
    if address == LOCAL:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
        # The default is 15: next to any other process, encoding was 11 times slower than in the command itself.
        os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(f"{error}: pip install 'seqrec[ray]'", "ray") from error
    if address != LOCAL:
        _check_address(address)
    with _temporary_directory() if address == LOCAL else nullcontext() as directory:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if directory is not None:
            options |= {"_node_ip_address": "127.0.0.1", "include_dashboard": False, "_temp_dir": str(directory)}
            options |= {"num_cpus": max(cores(), torch.get_num_threads())}
        try:
            ray.init(address, **options)
        except Exception as error:
            raise ClusterError(f"Ray at {address} cannot be used: {_first_line(error)}") from error
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _temporary_directory() -> Iterator[Path]:
    """For Ray's sockets and logs, which it leaves behind. Removed when this process ends, even if it is killed.

    Its path is short, since that of a socket has at most 107 bytes.
    """
    directory = Path(tempfile.mkdtemp(prefix="seqrec-ray-"))
    command = ["sh", "-c", _CLEAN_UP, "sh", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as own:
        try:
            yield directory
        finally:
            own.communicate(b"end\n")


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"local or HOST:PORT of a Ray cluster, not {address!r}", "ray")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, SeqrecError) else f"{type(error).__name__}: {lines[0]}"
