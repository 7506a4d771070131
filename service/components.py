"""What the service is made of: opened in the background, since a store may be away when a process starts."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from index.catalogue.base import Catalogue
from index.catalogue.histories import HistoryStore
from index.catalogue.open import open_catalogue, open_histories
from seqrec.errors import CatalogueError, NotReady
from seqrec.runtime.malloc import freeze_gc
from service.engine.recommender import ITEMS, RECOMMEND, Recommender
from service.engine.vector_cache import VectorCache
from service.jobs import AutoReindexer, Reindexer
from service.live.follower import Follower
from service.live.loader import Loader
from service.live.state import LiveState
from service.metrics import Metrics
from service.settings import Settings

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from the others; Python's own 5 ms are for throughput."""
_BATCH_TOKENS = {"cpu": 512, "cuda": 65536}
"""On a CPU a core's: with twice as many 3 % more are done, and who comes next waits up to twice as long."""


@dataclass(frozen=True)
class Components:
    """What the endpoints work with."""

    settings: Settings
    catalogue: Catalogue
    histories: HistoryStore
    follower: Follower
    recommender: Recommender
    reindexer: Reindexer
    metrics: Metrics

    def close(self) -> None:
        self.reindexer.close()
        self.follower.close()
        self.recommender.close()
        self.catalogue.close()
        self.histories.close()


class StartupTask:
    """Opens the parts; where the catalogue is away, again and again until it is there."""

    def __init__(self, open_all: Callable[[], Components]) -> None:
        self._open_all = open_all
        self._parts: Components | None = None
        self._error = NotReady("the catalogue is being opened")
        self._task: asyncio.Task[None] | None = None

    @property
    def parts(self) -> Components:
        """Raises NotReady until they are open."""
        if self._parts is None:
            raise self._error
        return self._parts

    async def start(self) -> None:
        """Try once; if the catalogue is away, go on behind its back. Raises what cannot pass by itself."""
        if not await self._try():
            self._task = asyncio.create_task(self._try_again())

    async def loaded(self, seconds: float) -> None:
        """Wait for the first snapshot, unless it cannot be loaded or takes longer."""
        until = time.monotonic() + seconds
        while self._parts is not None and self._parts.follower.starting and time.monotonic() < until:
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._parts is not None:
            await asyncio.to_thread(self._parts.close)

    async def _try(self) -> bool:
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_all))
        try:
            self._parts = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on all the same: what it opens is to be closed.
            await asyncio.wait([opening])
            self._parts = None if opening.exception() else opening.result()
            raise
        except CatalogueError as error:
            if str(error) != str(self._error):
                log.error("the catalogue cannot be opened, trying again: %s", error)
            self._error = NotReady(str(error))
            return False
        return True

    async def _try_again(self) -> None:
        done = False
        while not done:
            await asyncio.sleep(_RETRY_SECONDS)
            done = await self._try()


def open_components(settings: Settings, metrics: Metrics, end: Callable[[], object]) -> Components:
    """Open the stores and start the threads. Raises CatalogueError."""
    location = settings.redis_url or settings.home
    catalogue = open_catalogue(location, accept_weaker=settings.accept_weaker)
    try:
        histories = open_histories(location, accept_weaker=settings.accept_weaker)
    except BaseException:
        catalogue.close()
        raise
    reindexer = Reindexer(settings, metrics.reindexes)
    by_itself = AutoReindexer(reindexer, settings.reindex_at, settings.reindex_min)

    def tick(state: LiveState | None) -> None:
        metrics.refresh()
        if state is not None:
            loader.keep_alive(state)
            if follower.settled:
                by_itself.maybe_start(state)
        if not recommender.batcher.alive:
            end()

    loader = Loader(settings, catalogue)
    follower = Follower(catalogue, loader, settings.follow_seconds, tick, metrics.swaps.inc)
    kind = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu")).type
    batch_tokens = settings.batch_tokens or _BATCH_TOKENS.get(kind, _BATCH_TOKENS["cpu"])
    cores = torch.get_num_threads() if kind == "cpu" else 1
    cache = VectorCache(settings.cache_bytes, settings.cache_url, metrics.cache)
    recommender = Recommender(catalogue, histories, follower, settings, batch_tokens, cache, metrics.batch, cores)
    parts = Components(settings, catalogue, histories, follower, recommender, reindexer, metrics)
    metrics.state(lambda: _state(parts))
    freeze_gc()
    # A request passes between threads several times, and waits so long each time while a snapshot is being loaded.
    sys.setswitchinterval(_SWITCH_SECONDS)
    follower.start()
    return parts


def _state(parts: Components) -> tuple[Mapping[str, float], str | None]:
    """What metrics tell of this moment."""
    follower, batcher = parts.follower, parts.recommender.batcher
    state = follower.state
    values: dict[str, float] = {
        "seqrec_ready": follower.trouble is None and batcher.alive,
        "seqrec_degraded": len(follower.degraded),
        "seqrec_threads": torch.get_num_threads(),
        "seqrec_queue_tokens": batcher.waiting_tokens(RECOMMEND),
        "seqrec_queue_item_tokens": batcher.waiting_tokens(ITEMS),
        "seqrec_cache_bytes": parts.recommender.cache.bytes,
        "seqrec_cache_entries": len(parts.recommender.cache),
        "seqrec_seq_head": follower.head,
        "seqrec_log_read_timestamp_seconds": follower.looked,
    }
    if state is None:
        return values, None
    view = state.view
    values |= {
        "seqrec_seq_applied": view.seq,
        "seqrec_lag": max(0, follower.head - view.seq),
        "seqrec_delta_rows": view.length,
        "seqrec_tombstones": state.tombstones,
        "seqrec_snapshot_items": len(state.snapshot.item_ids),
    }
    return values, state.snapshot.id
