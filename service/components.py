"""The components of the service. They open in the background: a store may be unreachable when a process starts."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import torch

from index.catalogue.base import Catalogue
from index.catalogue.histories import HistoryStore
from index.catalogue.open import open_catalogue, open_histories
from seqrec.checkpoint import WEIGHTS
from seqrec.errors import CatalogueError, NotReady
from seqrec.runtime.malloc import freeze_gc
from service.engine.execution import Answer
from service.engine.plan import Plan
from service.engine.recommender import ITEMS, RECOMMEND, Recommender
from service.engine.trace import Trace
from service.engine.user_history import UserHistory
from service.engine.vector_cache import VectorCache
from service.health import HealthCheck
from service.jobs import AutoReindexer, AutoRetrainer, JobRunner
from service.live.follower import Follower
from service.live.loader import Loader
from service.live.side import SideSnapshots
from service.live.state import LiveState
from service.metrics import Metrics, shared_directory
from service.reports.coverage import AnsweredItems
from service.reports.quality import Quality
from service.reports.retention import Retention
from service.reports.shadow import Shadows
from service.settings import Settings

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_SWITCH_SECONDS = 0.0005
"""How long a thread may hold the interpreter while others wait. Python's default of 5 ms favours throughput."""
_CORE_REQUESTS, _GPU_REQUESTS = 32, 2048
"""Open requests a core, or a GPU: enough for full batches, few enough that the last is answered within a second."""
_BATCH_TOKENS = {"cpu": 512, "cuda": 65536}
"""On a CPU for each core. Twice as many gain 3 % throughput and let the next request wait up to twice as long."""


@dataclass(frozen=True)
class Components:
    """Everything the endpoints use."""

    settings: Settings
    catalogue: Catalogue
    histories: HistoryStore
    follower: Follower
    sides: SideSnapshots
    recommender: Recommender
    shadows: Shadows
    quality: Quality
    reindexer: JobRunner
    retrainer: JobRunner
    metrics: Metrics
    health: HealthCheck

    @property
    def degraded(self) -> list[str]:
        """What is wrong while requests are answered."""
        found = [*self.follower.degraded, *self.sides.degraded, *self.recommender.degraded]
        # Problems that a request or the follower has reported are not reported twice.
        return found + [problem for problem in self.health.problems if not any(problem in reason for reason in found)]

    def close(self) -> None:
        self.reindexer.close()
        self.retrainer.close()
        self.follower.close()
        self.shadows.close()
        self.sides.close()
        self.recommender.close()
        self.catalogue.close()
        self.histories.close()
        self.metrics.state(lambda: ({}, None))
        self.metrics.sides(dict)


class StartupTask:
    """Opens the components. While the catalogue is unreachable it retries, once a second."""

    def __init__(self, open_all: Callable[[], Components]) -> None:
        self._open_all = open_all
        self._components: Components | None = None
        self._error = NotReady("the catalogue is being opened")
        self._task: asyncio.Task[None] | None = None

    @property
    def components(self) -> Components:
        """Raises NotReady until they are open."""
        if self._components is None:
            raise self._error
        return self._components

    async def start(self) -> None:
        """Try once; if the catalogue is unreachable, keep retrying in the background. Permanent errors are raised."""
        if not await self._try():
            self._task = asyncio.create_task(self._try_again())

    async def loaded(self, seconds: float) -> None:
        """Wait until the first snapshot is loaded or has failed to load, at most `seconds`."""
        until = time.monotonic() + seconds
        while self._components is not None and self._components.follower.starting and time.monotonic() < until:
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._components is not None:
            await asyncio.to_thread(self._components.close)

    async def _try(self) -> bool:
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_all))
        try:
            self._components = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread continues after the cancellation: what it opens must be closed.
            await asyncio.wait([opening])
            self._components = None if opening.exception() else opening.result()
            raise
        except CatalogueError as error:
            if str(error) != str(self._error):
                log.error("the catalogue cannot be opened, retrying: %s", error)
            self._error = NotReady(str(error))
            return False
        return True

    async def _try_again(self) -> None:
        done = False
        while not done:
            await asyncio.sleep(_RETRY_SECONDS)
            done = await self._try()


def open_requests(settings: Settings) -> int:
    """Requests of a kind that a worker processes concurrently; further ones are refused before their body is read."""
    if settings.max_open_requests is not None:
        return settings.max_open_requests
    return _GPU_REQUESTS if _device_kind(settings) == "cuda" else max(64, _CORE_REQUESTS * torch.get_num_threads())


def _device_kind(settings: Settings) -> str:
    return torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu")).type


def open_components(
    settings: Settings,
    metrics: Metrics,
    end: Callable[[], object],
    snapshot: str | None = None,
    own_process: bool = False,
) -> Components:
    """Open the stores and start the threads. `snapshot`: answer from this one, whatever is published.

    `own_process`: the process does nothing else and ends with the components. Its garbage collection and the switching
    of its threads are then set for short answers. In another program, objects that are opened and closed again would
    never be freed.

    Raises CatalogueError.
    """
    location = settings.redis_url or settings.home
    catalogue = open_catalogue(location, accept_weaker=settings.accept_weaker)
    try:
        histories = open_histories(location, accept_weaker=settings.accept_weaker)
    except BaseException:
        catalogue.close()
        raise
    reindexer = JobRunner(settings, "reindex", metrics.reindexes)
    auto_reindexer = AutoReindexer(reindexer, settings.reindex_at, settings.reindex_min)
    retrainer = JobRunner(settings, "retrain", metrics.retrains)
    retention = Retention(histories, settings.outcome_days)
    auto_retrainer = AutoRetrainer(retrainer, settings.home, settings.retrain_seconds)

    unreachable = False

    def tick(state: LiveState | None) -> None:
        nonlocal unreachable
        metrics.refresh()
        if unreachable and follower.unreadable is None:
            recommender.forget_failures()  # calls failed because the store was unreachable
        unreachable = follower.unreadable is not None
        if state is not None:
            loader.keep_alive(state)
            sides.follow(state)
            health.run(state)
            quality.run(state)
            retention.maybe_run()
            if follower.settled:
                auto_reindexer.maybe_start(state)
                auto_retrainer.maybe_start(state)
        if not recommender.batcher.alive:
            end()

    def start_side(snapshot_id: str, state: LiveState | None) -> Follower:
        load = Loader(settings, catalogue, histories)

        def tick_side(of: LiveState | None) -> None:
            if of is not None:
                load.keep_alive(of)

        side = Follower(
            catalogue,
            lambda wanted, before: load(wanted, before or follower.state),
            settings.follow_seconds,
            tick_side,
            histories=histories,
            pinned=snapshot_id,
            state=state,
        )
        side.start()
        return side

    loader = Loader(settings, catalogue, histories)
    health = HealthCheck(catalogue, histories, engine=loader.milvus)
    sides = SideSnapshots(start_side, settings.deadline)
    follower = Follower(
        catalogue,
        loader,
        settings.follow_seconds,
        tick,
        metrics.swaps.inc,
        histories,
        retire=sides.adopt,
        pinned=snapshot,
    )
    kind = _device_kind(settings)
    batch_tokens = settings.batch_tokens or _BATCH_TOKENS.get(kind, _BATCH_TOKENS["cpu"])
    cores = torch.get_num_threads() if kind == "cpu" else 1
    cache = VectorCache(settings.cache_bytes, settings.cache_url, metrics.cache)
    shadows = Shadows(
        sides,
        settings.max_history,
        lambda: recommender.batcher.busy,
        metrics.shadow,
        settings.deadline,
    )
    quality = Quality(AnsweredItems(shared_directory()), metrics.answer, metrics.history)

    def answered(
        plans: Sequence[Plan], users: Mapping[str, UserHistory], answers: Sequence[Answer], trace: Trace
    ) -> None:
        quality.offer(plans, answers)
        shadows.offer(plans, users, answers, trace)

    recommender = Recommender(
        catalogue, histories, follower, sides, settings, batch_tokens, cache, metrics.batch, cores, answered
    )
    components = Components(
        settings,
        catalogue,
        histories,
        follower,
        sides,
        recommender,
        shadows,
        quality,
        reindexer,
        retrainer,
        metrics,
        health,
    )
    metrics.state(lambda: _state(components))
    metrics.sides(sides.statuses)
    if own_process:
        freeze_gc()
        # A request changes threads several times, and waits for one interval each time while a snapshot is loaded.
        sys.setswitchinterval(_SWITCH_SECONDS)
    follower.start()
    return components


def _state(components: Components) -> tuple[Mapping[str, float], str | None]:
    """The gauges, and the id of the snapshot that is served."""
    follower, batcher = components.follower, components.recommender.batcher
    state = follower.state
    values: dict[str, float] = {
        "seqrec_ready": follower.trouble is None and batcher.alive,
        "seqrec_degraded": len(components.degraded),
        "seqrec_threads": torch.get_num_threads(),
        "seqrec_queue_tokens": batcher.waiting_tokens(RECOMMEND),
        "seqrec_queue_item_tokens": batcher.waiting_tokens(ITEMS),
        "seqrec_cache_bytes": components.recommender.cache.bytes,
        "seqrec_cache_entries": len(components.recommender.cache),
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
        "seqrec_snapshot_timestamp_seconds": datetime.fromisoformat(state.snapshot.manifest.created).timestamp(),
        "seqrec_newest_event_timestamp_seconds": state.counts.newest(time.time()) or 0.0,
        **components.quality.gauges,
    }
    with suppress(OSError):  # it is in memory, and may have been removed since
        values["seqrec_model_timestamp_seconds"] = (state.towers.checkpoint.path / WEIGHTS).stat().st_mtime
    return values, state.snapshot.id
