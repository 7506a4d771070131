"""The application: parts put together, started and stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline

from seqrec import __version__
from service.components import StartupTask, open_parts
from service.http import problems
from service.http.middleware import RequestMiddleware
from service.http.routes.operation import operation
from service.http.routes.recommend import STATIC, router
from service.http.routes.users import users
from service.http.schemas import Problem
from service.metrics import Metrics
from service.settings import Settings
from service.workers import shared_directory

_LOADING_SECONDS = 30.0
"""How long one of several workers may take before it accepts connections all the same, and says what is wrong."""


def create_app(settings: Settings, end: Callable[[], object] = lambda: None) -> FastAPI:
    """The service as an ASGI app. Nothing is opened before it starts; the snapshot loads behind its back then.

    `end` is called when a compute thread has died, for a worker whose supervisor starts another one.
    """
    metrics = Metrics(shared_directory())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opening = app.state.opening = StartupTask(lambda: open_parts(settings, metrics, end))
        try:
            await opening.start()
            if shared_directory() is not None:
                # Others answer meanwhile: a worker that is started anew takes no requests that it cannot answer.
                await opening.loaded(_LOADING_SECONDS)
            yield
        finally:
            await opening.close()

    app = FastAPIOffline(  # FastAPI's own /docs is blank where a browser cannot reach the CDN that it loads from
        title="seqrec",
        version=__version__,
        description="A history of items goes in, the next items come out; a new item needs only its text.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.metrics = metrics
    problems.install(app)
    app.include_router(router)
    app.include_router(users)
    app.include_router(operation)
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False), name="static")
    app.add_middleware(RequestMiddleware, metrics=metrics, max_body_bytes=settings.max_body_bytes)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = schema["components"]["schemas"]
        # FastAPI's own shape of a validation error: it is answered as a problem instead.
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = Problem.model_json_schema()
        app.openapi_schema = schema
    return app.openapi_schema
