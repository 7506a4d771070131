"""The endpoints, one module per topic."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from service.http.routes import browse, items, keys, operation, placements, recommend, reports, users
from service.http.routes.direct import DirectRoute
from service.http.routes.operation import CONSOLE


def install(app: FastAPI) -> None:
    """Add every endpoint, and the console's files under /static."""
    app.router.routes[:0] = [DirectRoute(route) for route in recommend.router.routes if isinstance(route, APIRoute)]
    for module in (recommend, items, placements, users, reports, browse, keys, operation):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=CONSOLE, check_dir=False), name="static")
