"""The endpoints, one module per topic."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from service.http.routes import browse, items, operation, placements, recommend, users
from service.http.routes.operation import CONSOLE


def install(app: FastAPI) -> None:
    """Add every endpoint, and the console's files under /static."""
    for module in (recommend, items, placements, users, browse, operation):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=CONSOLE, check_dir=False), name="static")
