"""The ASGI application: assembles the components and the API, starts and stops them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from index.keys.open import open_keys
from seqrec import __version__
from seqrec.runtime.malloc import limit_arenas
from service import logs
from service.components import StartupTask, open_components, open_requests
from service.http import openapi, problems, routes
from service.http.access import AccessControl
from service.http.middleware import RequestMiddleware
from service.http.protocol import STATE_KEY, ConnectionLimits
from service.keys.key_limits import KeyLimits
from service.keys.key_ring import KeyRing
from service.metrics import Metrics, shared_directory
from service.settings import Settings, load_settings
from service.tracing import open_tracing
from service.workers import end_with_parent, end_worker, mark_accepting, quiet_libraries, take_gpu

log = logging.getLogger(__name__)

_LOADING_SECONDS = 30.0
"""How long one of several workers may load before it accepts connections; then /readyz gives the reason."""
_PREFLIGHT_SECONDS = 600
"""How long a browser may remember that a page of another origin may call."""
ANONYMOUS = (
    "there are no API keys: everybody who reaches this address may do everything. "
    "`seqrec keys create NAME --scope admin` ends that"
)


def create_app(
    settings: Settings,
    end: Callable[[], object] = lambda: None,
    accepting: Callable[[], object] = lambda: None,
    own_process: bool = False,
) -> FastAPI:
    """The service as an ASGI app. Opens nothing until it starts; the snapshot then loads in the background.

    `end` is called when a compute thread has died: a worker ends itself, and its supervisor starts a new one.
    `accepting` is called when the app is about to accept connections. `own_process`: see `open_components`.
    """
    metrics = Metrics(shared_directory())
    location = settings.redis_url or settings.home
    ring = KeyRing(lambda: open_keys(location, settings.accept_weaker), settings.anonymous)
    limits = KeyLimits(settings.limits_url)
    tracing = open_tracing() if settings.traces else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, ConnectionLimits]]:
        startup = app.state.startup = StartupTask(
            lambda: open_components(settings, metrics, end, own_process=own_process)
        )
        try:
            await asyncio.to_thread(ring.start)
            if ring.anonymous:
                log.warning("%s", ANONYMOUS)
            await startup.start()
            if shared_directory() is not None:
                # Other workers answer meanwhile, or else the supervisor.
                await startup.loaded(_LOADING_SECONDS)
            accepting()
            yield {STATE_KEY: ConnectionLimits(settings.max_connections, metrics.connection_closed)}
        finally:
            await startup.close()
            del app.state.startup  # FastAPI's caches keep an app for ever, and with it what it refers to
            await limits.close()
            await asyncio.to_thread(ring.close)
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = FastAPIOffline(  # FastAPI's /docs loads from a CDN and stays blank where the browser cannot reach it
        title=openapi.TITLE,
        version=__version__,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        generate_unique_id_function=openapi.operation_id,
    )
    app.state.metrics, app.state.home = metrics, settings.home
    app.state.keys = ring
    problems.install(app)
    routes.install(app)
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        settings=settings,
        open_requests=open_requests(settings),
        access=AccessControl(ring, limits, metrics),
        tracing=tracing,
    )
    if settings.origin_list:
        # Outside of the other one: a browser sends no key with its question whether it may call.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(settings.origin_list),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-Id"],
            expose_headers=["Retry-After", "X-Request-Id"],
            max_age=_PREFLIGHT_SECONDS,
        )
    app.openapi = lambda: openapi.schema(app)  # type: ignore[method-assign]
    return app


def worker_app() -> FastAPI:
    """The app of one of several workers. Called in the worker's process before anything is loaded."""
    settings = load_settings()
    logs.set_up(settings, logs.WORKER_TEXT)
    quiet_libraries()
    limit_arenas()
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    take_gpu()
    return create_app(settings, end=end_worker, accepting=mark_accepting, own_process=True)
