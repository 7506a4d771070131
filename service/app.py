"""The application: parts put together, started and stopped."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import torch
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline

from index.sqlite_catalogue import SqliteCatalogue
from seqrec import __version__
from seqrec.encoder import TOKEN_BUDGET
from service import problems
from service.api import Problem
from service.follower import Follower
from service.jobs import Reindexer
from service.loader import Loader
from service.metrics import Metrics
from service.middleware import Edge
from service.recommender import ITEMS, RECOMMEND, Recommender
from service.routes import STATIC, Parts, router
from service.settings import Settings

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI app. Nothing is opened before it starts; the snapshot loads behind its back then.

    On start raises CatalogueError where the catalogue cannot be opened.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        parts = _start(settings, metrics)
        app.state.parts = parts
        try:
            yield
        finally:
            parts.reindexer.close()
            parts.follower.close()
            parts.recommender.close()
            parts.catalogue.close()

    app = FastAPIOffline(  # FastAPI's own /docs is blank where a browser cannot reach the CDN that it loads from
        title="seqrec",
        version=__version__,
        description="A history of items goes in, the next items come out; a new item needs only its text.",
        lifespan=lifespan,
        redoc_url=None,
    )
    problems.install(app)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False), name="static")
    app.add_middleware(Edge, metrics=metrics, max_body_bytes=settings.max_body_bytes)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _start(settings: Settings, metrics: Metrics) -> Parts:
    catalogue = SqliteCatalogue(settings.home / "catalogue.sqlite3")
    follower = Follower(catalogue, Loader(settings, catalogue.catalogue_id), settings.follow_seconds)
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    batch_tokens = settings.batch_tokens or TOKEN_BUDGET.get(torch.device(device).type, TOKEN_BUDGET["cpu"])
    recommender = Recommender(catalogue, follower, settings, batch_tokens, metrics.batch)

    def state() -> dict[str, float]:
        live = follower.state
        values: dict[str, float] = {
            "seqrec_ready": live is not None,
            "seqrec_queue_tokens": recommender.batcher.waiting_tokens(RECOMMEND),
            "seqrec_queue_item_tokens": recommender.batcher.waiting_tokens(ITEMS),
            "seqrec_seq_head": catalogue.head(),
        }
        if live is not None:
            values |= {"seqrec_seq_applied": live.view.seq, "seqrec_delta_rows": live.view.length}
        return values

    metrics.state(state, lambda: None if follower.state is None else follower.state.snapshot.id)
    follower.start()
    return Parts(settings, catalogue, follower, recommender, Reindexer(settings), metrics)


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
