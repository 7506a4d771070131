"""Dependencies of the endpoints, and the description of their errors."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from seqrec.errors import InputError
from service.components import Components, StartupTask
from service.engine.trace import Trace
from service.http.problems import MEDIA_TYPE
from service.live.filter_language import Filter, parse_filter


# Async: FastAPI would run a plain function on a thread.
async def _startup(request: Request) -> StartupTask:
    startup: StartupTask = request.app.state.startup
    return startup


async def _components(request: Request) -> Components:
    startup: StartupTask = request.app.state.startup
    return startup.components


async def _trace(request: Request) -> Trace:
    trace: Trace = request.state.trace
    return trace


async def _filter(
    request: Request,
    filter: Annotated[str | None, Query(description="conditions on attributes as in POST /recommend, in JSON")] = None,
) -> Filter | None:
    if not filter:
        return None
    startup: StartupTask = request.app.state.startup
    try:
        value = json.loads(filter)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError('conditions are a JSON object such as {"brand": "Acme"}', "filter")
    return parse_filter(value, "filter", startup.components.settings.max_ids) if value else None


async def _audit(request: Request) -> dict[str, object]:
    details: dict[str, object] = request.state.audit
    return details


StartupDep = Annotated[StartupTask, Depends(_startup)]
ComponentsDep = Annotated[Components, Depends(_components)]
TraceDep = Annotated[Trace, Depends(_trace)]
FilterDep = Annotated[Filter | None, Depends(_filter)]
AuditDep = Annotated[dict[str, object], Depends(_audit)]
"""What a request changes, for its line in the audit log; an endpoint adds to it."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of an endpoint, for the OpenAPI document."""
    descriptions = {
        400: "The body is not JSON",
        401: "No valid API key, where keys are needed",
        403: "The API key lacks the scope, or the request comes from a page of another site",
        404: "It does not exist",
        413: "The body is too large",
        415: "The body is not sent as JSON",
        421: "The request is for a host name that is not this service's",
        422: "The request is not valid; `field` names the value",
        429: "The service is busy, or the key's rate or quota is reached; retry after the seconds in Retry-After",
        503: "Not ready, or the catalogue cannot be used; with Retry-After where a retry can help",
        504: "No answer within the deadline",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": descriptions[status], "content": content} for status in statuses}


READ = problems(400, 413, 415, 422, 429, 503, 504)
WRITE = problems(400, 413, 415, 422, 429, 503, 504)
