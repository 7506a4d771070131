"""What every endpoint is given, and how its errors are described."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from service.components import Components, StartupTask
from service.engine.recommender import Trace
from service.http.problems import MEDIA_TYPE


# Async, since FastAPI would run a plain function on a thread of its own.
async def _opening(request: Request) -> StartupTask:
    opening: StartupTask = request.app.state.opening
    return opening


async def _parts(request: Request) -> Components:
    opening: StartupTask = request.app.state.opening
    return opening.parts


async def _trace(request: Request) -> Trace:
    trace: Trace = request.state.trace
    return trace


StartupDep = Annotated[StartupTask, Depends(_opening)]
ComponentsDep = Annotated[Components, Depends(_parts)]
TraceDep = Annotated[Trace, Depends(_trace)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors an endpoint answers with, for the OpenAPI document."""
    words = {
        400: "The body is not JSON",
        404: "There is no such thing",
        413: "The body is too large",
        422: "The request is not valid; `field` says where",
        429: "Too much is waiting; Retry-After says when to come back",
        503: "Not ready, or the catalogue cannot be used; Retry-After says when to come back where that may help",
        504: "Not within the deadline",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": words[status], "content": content} for status in statuses}


READ = problems(400, 413, 422, 429, 503, 504)
WRITE = problems(400, 413, 422, 503)
