"""Errors over HTTP: one table from error class to status, answered as application/problem+json (RFC 9457).

`detail` names the value and what is wrong with it, `field` its place, `advice` the way out. `type` is a URN for the
kind of error; clients should branch on `status` or `type`, never on the text.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from seqrec.errors import (
    CatalogueError,
    CatalogueReplaced,
    CheckpointError,
    DeadlineExceeded,
    EngineUnavailable,
    InputError,
    ItemNotFound,
    NotReady,
    OutcomeUnknown,
    Overloaded,
    PlacementNotFound,
    SeqrecError,
    SnapshotError,
    SnapshotNotFound,
    UserNotFound,
)
from service.jobs import JobNotFound
from service.validation import field_path, reason

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


_PATH = re.compile(r"(?<![\w/.:@])/(?:[^\s/:;,'\"]+/)+([^\s/:;,'\"]+)")
MAX_ERRORS = 20
"""In one answer."""


class Kind(NamedTuple):
    """How a class of errors is answered over HTTP."""

    status: int
    name: str
    title: str
    advice: str


_LATER = "Nothing was written unless an answer said so; retry after Retry-After."
_RETRY_SECONDS = 1
"""Retry-After where there is no estimate."""

INVALID = Kind(422, "invalid-input", "The request is not valid", "GET /docs describes every field.")
BUSY = Kind(429, "overloaded", "The service is busy", "Retry after the seconds in Retry-After.")

# The first matching class decides, so narrower classes come first.
KINDS: list[tuple[type[SeqrecError], Kind]] = [
    (InputError, INVALID),
    (ItemNotFound, Kind(404, "item-not-found", "No such item", "GET /items?q=words finds items.")),
    (
        PlacementNotFound,
        Kind(404, "placement-not-found", "No such placement", "GET /placements lists the placements."),
    ),
    (UserNotFound, Kind(404, "user-not-found", "No such user", "GET /users names some; POST /events makes new ones.")),
    (SnapshotNotFound, Kind(404, "snapshot-not-found", "No such snapshot", "GET /snapshots lists them.")),
    (JobNotFound, Kind(404, "job-not-found", "No such job", "POST /reindex starts a job and answers with its id.")),
    (NotReady, Kind(503, "not-ready", "Not ready", "GET /readyz says why; try again when it answers 200.")),
    (Overloaded, BUSY),
    (
        DeadlineExceeded,
        Kind(
            504,
            "deadline-exceeded",
            "No answer within the deadline",
            "Request less at once, or retry later. Nothing was written.",
        ),
    ),
    (
        OutcomeUnknown,
        Kind(
            503,
            "outcome-unknown",
            "It may have been written or not",
            "Items and deletes can be sent again. Events may be stored already: only with an event_id is it safe to "
            "send one again, otherwise it may be stored twice.",
        ),
    ),
    (
        CatalogueReplaced,
        Kind(
            503,
            "catalogue-replaced",
            "The catalogue is not the one that was served",
            "Restore the catalogue that was served, or restart the service.",
        ),
    ),
    (CatalogueError, Kind(503, "catalogue-unavailable", "The catalogue cannot be used", _LATER)),
    (
        EngineUnavailable,
        Kind(503, "engine-unavailable", "The vector engine is away", "Retry after Retry-After."),
    ),
    (SnapshotError, Kind(503, "snapshot-unusable", "The snapshot cannot be used", "`seqrec index verify` checks it.")),
    (
        CheckpointError,
        Kind(503, "checkpoint-unusable", "The model cannot be used", "The reason is in the service's log."),
    ),
]

FOREIGN_HOST = Kind(421, "host-not-allowed", "Not the name of this service", "Add the name to SEQREC_ALLOWED_HOSTS.")
FOREIGN_ORIGIN = Kind(
    403,
    "origin-not-allowed",
    "The request comes from a page of another site",
    "Send it from a server, or from this host.",
)
UNEXPECTED = Kind(
    500, "unexpected", "Unexpected error", "The service's log has the reason, under the id in the header X-Request-Id."
)
BAD_JSON = Kind(400, "invalid-json", "The body is not JSON", "Send one JSON object, in UTF-8.")
NOT_JSON = Kind(415, "not-json", "The body is not sent as JSON", "Send the header Content-Type: application/json.")
TOO_LARGE = Kind(413, "body-too-large", "The body is too large", "Split it into several requests.")
NO_KEY = Kind(
    401,
    "key-required",
    "An API key is needed",
    "Send the header Authorization: Bearer KEY, or X-API-Key: KEY. `seqrec keys create` makes one.",
)
BAD_KEY = Kind(401, "key-invalid", "The API key is not valid", "`seqrec keys list` shows which keys are valid.")
FORBIDDEN = Kind(
    403, "scope-missing", "The API key may not do this", "`seqrec keys create NAME --scope ...` creates a key with it."
)
KEY_LIMIT = Kind(429, "key-limit", "The limit of the API key is reached", "Retry after the seconds in Retry-After.")
KEYS_UNKNOWN = Kind(503, "not-ready", "Not ready", "GET /readyz says why; try again when it answers 200.")
HTTP_KINDS: dict[int, Kind] = {
    400: BAD_JSON,
    404: Kind(404, "no-such-path", "No such path", "GET /docs lists what there is."),
    405: Kind(405, "method-not-allowed", "Method not allowed", "The header Allow lists the methods."),
}


def problem(
    kind: Kind,
    detail: str,
    field: str | None = None,
    headers: dict[str, str] | None = None,
    errors: Sequence[dict[str, str]] = (),
) -> Response:
    """An error as a response; `errors` where there are several."""
    body = {
        "type": f"urn:problem-type:seqrec:{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        **({} if field is None else {"field": field}),
        "advice": kind.advice,
        **({"errors": errors} if len(errors) > 1 else {}),
    }
    # ASCII: a quoted value may contain a lone surrogate, which UTF-8 cannot encode.
    return Response(json.dumps(body, ensure_ascii=True), kind.status, headers, MEDIA_TYPE)


class Refused(Exception):
    """A request that goes no further, and the response to it. Headers are written with underscores."""

    def __init__(self, kind: Kind, detail: str, field: str | None = None, **headers: str) -> None:
        super().__init__(detail)
        self.response = problem(kind, detail, field, {name.replace("_", "-"): text for name, text in headers.items()})


def of_error(error: Exception, home: Path) -> Response:
    """The response to an error that was raised on purpose; any other is answered without details."""
    for error_class, kind in KINDS:
        if isinstance(error, error_class):
            field = error.field if isinstance(error, InputError) else None
            detail = str(error) if kind.status < 500 else without_directories(str(error), home)
            return problem(kind, detail, field, _retry_after(error))
    return problem(UNEXPECTED, "Something went wrong inside the service.")


def without_directories(text: str, home: Path) -> str:
    """The text with paths cut to what is below `home`, or to their last name: clients need not know the rest."""
    for directory in {str(home.absolute()), str(home.resolve()), str(home)} - {".", ""}:
        text = text.replace(f"{directory}/", "")
    return _PATH.sub(r"\1", text)


def _retry_after(error: SeqrecError) -> dict[str, str] | None:
    """Retry-After, where the same request may succeed a little later."""
    if isinstance(error, Overloaded):
        return {"Retry-After": str(math.ceil(error.retry_after))}
    if isinstance(error, NotReady | CatalogueError | EngineUnavailable) and not isinstance(error, CatalogueReplaced):
        return {"Retry-After": str(_RETRY_SECONDS)}
    return None


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem, also FastAPI's and Starlette's own."""

    @app.exception_handler(SeqrecError)
    async def on_seqrec_error(request: Request, error: SeqrecError) -> Response:
        if not isinstance(error, InputError | ItemNotFound | JobNotFound | Overloaded):
            log.warning("%s %s: %s", request.method, request.url.path, error)
        return of_error(error, request.app.state.home)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        field = getattr(request.scope.get("route"), "body_field", None)
        return of_validation(error.errors(), None if field is None else field.field_info.annotation)

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        kind = HTTP_KINDS.get(error.status_code)
        if kind is None:
            kind = Kind(error.status_code, "http", error.detail, "GET /docs lists what there is.")
        where = f"{request.method} {request.url.path}"
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_allowed(request))
        detail = {
            400: "Not JSON: not UTF-8, nested too deeply, or with a number of thousands of digits.",
            404: f"There is no {where}.",
            405: f"There is no {where}; the path has other methods.",
        }
        return problem(kind, detail.get(error.status_code, error.detail), headers=headers)


def _allowed(request: Request) -> list[str]:
    """Methods of all routes with this path; Starlette names those of the first one only."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        path, allowed = getattr(route, "path", None), getattr(route, "methods", None)
        if path and allowed and compile_path(path)[0].match(request.scope["path"]):
            methods |= allowed
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def of_validation(errors: Sequence[Any], body: Any = None) -> Response:
    """The errors that pydantic found: the first as `detail` and `field`, the first `MAX_ERRORS` as `errors`.

    `body`: the type that was to be read.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        return problem(BAD_JSON, f"not JSON at character {first['loc'][-1]}: {first['ctx']['error']}")
    if isinstance(first.get("input"), bytes):
        return problem(NOT_JSON, "The body was not read, since its Content-Type is not application/json.")
    found = [{"field": field_path(error["loc"]), "detail": reason(error, body)} for error in errors[:MAX_ERRORS]]
    field, detail = found[0]["field"], found[0]["detail"]
    return problem(INVALID, f"{field}: {detail}" if field else detail, field or None, errors=found)
