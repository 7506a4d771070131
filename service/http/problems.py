"""Errors over HTTP: one table from error class to status, answered as application/problem+json (RFC 9457).

`detail` says what is wrong with which value, `field` where it is, `advice` what to do. `type` is a URN that names the
kind; clients should branch on `status` or `type`, never on the words.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from seqrec.errors import (
    CatalogueError,
    CatalogueReplaced,
    CheckpointError,
    DeadlineExceeded,
    InputError,
    ItemNotFound,
    NotReady,
    OutcomeUnknown,
    Overloaded,
    SeqrecError,
    SnapshotError,
)
from service.jobs import JobNotFound

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """What a class of errors is over HTTP."""

    status: int
    name: str
    title: str
    advice: str


_MEND = "Mend the field and send it again."
_LATER = "Nothing was written unless it was answered; try again after Retry-After."
_RETRY_SECONDS = 1
"""What Retry-After says where nothing tells how long it takes."""

# The first class of the table that an error is an instance of decides: the narrower come first.
KINDS: list[tuple[type[SeqrecError], Kind]] = [
    (InputError, Kind(422, "invalid-input", "The request is not valid", _MEND)),
    (ItemNotFound, Kind(404, "item-not-found", "No such item", "GET /items?q=words finds items.")),
    (JobNotFound, Kind(404, "job-not-found", "No such job", "POST /reindex starts a job and answers with its id.")),
    (NotReady, Kind(503, "not-ready", "Not ready", "GET /readyz says why; try again when it answers 200.")),
    (Overloaded, Kind(429, "overloaded", "Too much is waiting", "Wait as long as Retry-After says, then send again.")),
    (DeadlineExceeded, Kind(504, "deadline-exceeded", "Too late", "Ask for less, or later. Nothing was written.")),
    (
        OutcomeUnknown,
        Kind(503, "outcome-unknown", "It may have been written or not", "Send it again: to write it twice is safe."),
    ),
    (
        CatalogueReplaced,
        Kind(503, "catalogue-replaced", "The catalogue is not the one that was served", "Bring the right one back."),
    ),
    (CatalogueError, Kind(503, "catalogue-unavailable", "The catalogue cannot be used", _LATER)),
    (SnapshotError, Kind(503, "snapshot-unusable", "The snapshot cannot be used", "`seqrec index verify` says more.")),
    (CheckpointError, Kind(503, "checkpoint-unusable", "The model cannot be used", "The service's log says more.")),
]

UNEXPECTED = Kind(500, "unexpected", "Unexpected error", "It is in the log of the service under the request's id.")
BAD_JSON = Kind(400, "invalid-json", "The body is not JSON", "Send one JSON object, in UTF-8.")
NOT_JSON = Kind(415, "not-json", "The body is not sent as JSON", "Send the header Content-Type: application/json.")
TOO_LARGE = Kind(413, "body-too-large", "The body is too large", "Send less at once.")
HTTP_KINDS: dict[int, Kind] = {
    400: BAD_JSON,
    404: Kind(404, "no-such-path", "No such path", "GET /docs lists what there is."),
    405: Kind(405, "method-not-allowed", "Not with this method", "The header Allow says which methods there are."),
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
    # ASCII: what is quoted back may hold a lone surrogate, which no UTF-8 can.
    return Response(json.dumps(body, ensure_ascii=True), kind.status, headers, MEDIA_TYPE)


def of_error(error: Exception) -> Response:
    """The response to an error that was raised on purpose; to any other, one that gives nothing away."""
    for error_class, kind in KINDS:
        if isinstance(error, error_class):
            field = error.field if isinstance(error, InputError) else None
            return problem(kind, str(error), field, _retry_after(error))
    return problem(UNEXPECTED, "Something went wrong inside the service.")


def _retry_after(error: SeqrecError) -> dict[str, str] | None:
    """Where the same request may be answered a little later by itself."""
    if isinstance(error, Overloaded):
        return {"Retry-After": str(math.ceil(error.retry_after))}
    if isinstance(error, NotReady | CatalogueError) and not isinstance(error, CatalogueReplaced):
        return {"Retry-After": str(_RETRY_SECONDS)}
    return None


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem, also FastAPI's and Starlette's own."""

    @app.exception_handler(SeqrecError)
    async def on_seqrec_error(request: Request, error: SeqrecError) -> Response:
        if not isinstance(error, InputError | ItemNotFound | JobNotFound | Overloaded):
            log.warning("%s %s: %s", request.method, request.url.path, error)
        return of_error(error)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> Response:
        return of_validation(error.errors())

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        kind = HTTP_KINDS.get(error.status_code)
        if kind is None:
            kind = Kind(error.status_code, "http", error.detail, "GET /docs lists what there is.")
        where = f"{request.method} {request.url.path}"
        detail = {
            400: "Not JSON: not UTF-8, nested too deeply, or with a number of thousands of digits.",
            404: f"There is no {where}.",
            405: f"{where} is not there; the path is, with other methods.",
        }
        return problem(kind, detail.get(error.status_code, error.detail), headers=dict(error.headers or {}))


def of_validation(errors: Sequence[Any]) -> Response:
    """What pydantic found, the first in `detail` and `field`, all of it in `errors`."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return problem(BAD_JSON, f"not JSON at character {first['loc'][-1]}: {first['ctx']['error']}")
    if isinstance(first.get("input"), bytes):
        return problem(NOT_JSON, "The body was not read, since its Content-Type is not application/json.")
    found = [{"field": field_path(error["loc"]), "detail": _reason(error)} for error in errors]
    field, reason = found[0]["field"], found[0]["detail"]
    return problem(KINDS[0][1], f"{field}: {reason}" if field else reason, field or None, errors=found)


def field_path(loc: Sequence[str | int]) -> str:
    """("body", "history", 3, "<entry>", "attributes") -> "history[3].attributes"; a tag of a union is no field."""
    path = ""
    for part in loc[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (part.startswith("<") and part.endswith(">")):
            path += f".{part}" if path else part
    return path


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field; /docs lists those there are"
    if error["type"] == "missing" and len(error["loc"]) == 1:
        return "the body is missing; send a JSON object"
    message = str(error["msg"])
    value = error.get("input")
    if error["type"] == "missing" or not isinstance(value, str | int | float | None):
        return message
    shown = json.dumps(value)
    return f"{message}, not {shown if len(shown) <= 60 else shown[:57] + '...'}"
