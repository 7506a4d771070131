"""The ASGI application: assembles the components and the API, starts and stops them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from seqrec import __version__
from seqrec.runtime.malloc import limit_arenas
from service.components import StartupTask, open_components, open_requests
from service.http import openapi, problems, routes
from service.http.middleware import RequestMiddleware
from service.http.protocol import STATE_KEY, ConnectionLimits
from service.metrics import Metrics, shared_directory
from service.settings import Settings, load_settings
from service.workers import end_with_parent, end_worker, mark_accepting, quiet_libraries, take_gpu

_LOADING_SECONDS = 30.0
"""How long one of several workers may load before it accepts connections; then /readyz gives the reason."""


def create_app(
    settings: Settings, end: Callable[[], object] = lambda: None, accepting: Callable[[], object] = lambda: None
) -> FastAPI:
    """The service as an ASGI app. Opens nothing until it starts; the snapshot then loads in the background.

    `end` is called when a compute thread has died: a worker ends itself, and its supervisor starts a new one.
    `accepting` is called when the app is about to accept connections.
    """
    metrics = Metrics(shared_directory())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, ConnectionLimits]]:
        startup = app.state.startup = StartupTask(lambda: open_components(settings, metrics, end))
        try:
            await startup.start()
            if shared_directory() is not None:
                # Other workers answer meanwhile, or else the supervisor.
                await startup.loaded(_LOADING_SECONDS)
            accepting()
            limits = ConnectionLimits(settings.max_connections, metrics.connection_closed)
            yield {STATE_KEY: limits}
        finally:
            await startup.close()

    app = FastAPIOffline(  # FastAPI's /docs loads from a CDN and stays blank where the browser cannot reach it
        title=openapi.TITLE,
        version=__version__,
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.metrics, app.state.home = metrics, settings.home
    problems.install(app)
    routes.install(app)
    app.add_middleware(RequestMiddleware, metrics=metrics, settings=settings, open_requests=open_requests(settings))
    app.openapi = lambda: openapi.schema(app)  # type: ignore[method-assign]
    return app


def worker_app() -> FastAPI:
    """The app of one of several workers. Called in the worker's process before anything is loaded."""
    settings = load_settings()
    logging.basicConfig(
        level=settings.log_level.upper(), format=f"%(asctime)s %(levelname)s {os.getpid()} %(name)s: %(message)s"
    )
    quiet_libraries()
    limit_arenas()
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    take_gpu()
    return create_app(settings, end=end_worker, accepting=mark_accepting)
