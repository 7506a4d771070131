"""The OpenAPI document. The copy in the repository is made by `python -m service.http.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from service.http import routes
from service.http.dependencies import problems
from service.http.examples import EXAMPLES
from service.http.schemas import Problem
from service.keys.scopes import accepted_scopes

TITLE = "seqrec"
DESCRIPTION = (
    "Sequential recommendation from item text: send a user's history, get the next items. "
    "New items are recommendable as soon as they are posted."
)


TAGS = [
    {"name": "recommend", "description": "The next items after a history, and items similar to an item."},
    {"name": "items", "description": "The catalogue: add, replace, find, read and delete items."},
    {"name": "users", "description": "What users did: store it, forget a user."},
    {"name": "placements", "description": "Named rules for recommendations."},
    {"name": "reports", "description": "What became of recommendations, and how variants compare."},
    {"name": "browse", "description": "Browsing, for the console: attributes, users, snapshots, a map."},
    {"name": "operation", "description": "For operators of the service: reindex, health, readiness, metrics, keys."},
]
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of `seqrec keys create`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same in another header"},
}
_METHODS = ("get", "put", "post", "delete", "patch")


def operation_id(route: APIRoute) -> str:
    """The name of the function: short, and the same as in the Python client where that has the call."""
    return route.name


def schema(app: FastAPI) -> dict[str, Any]:
    """The app's document, built once."""
    if app.openapi_schema is None:
        built = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=TAGS
        )
        schemas = built["components"]["schemas"]
        # FastAPI describes its own validation errors; they are answered as a Problem instead.
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = Problem.model_json_schema()
        built["components"]["securitySchemes"] = _SECURITY
        for path, methods in built["paths"].items():
            for method, operation in methods.items():
                if method in _METHODS:
                    _complete(operation, method, path)
        app.openapi_schema = built
    return app.openapi_schema


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    """Add what the middleware does to every request: keys, limits, checks of headers. And the examples."""
    responses = operation["responses"]
    refused = [421]
    if "requestBody" in operation:
        refused += [400, 403, 413, 415, 422]
    if method != "get":
        refused.append(403)  # pages of other sites
    accepted = accepted_scopes(method.upper(), path)
    if accepted is not None:
        operation["security"] = [{name: []} for name in _SECURITY]
        operation["x-scopes"] = sorted(accepted)
        operation["description"] += f"\n\nScope of the key: {' or '.join(f'`{name}`' for name in sorted(accepted))}."
        refused += [401, 403, 429, 503]
    else:
        operation["security"] = []
    if operation.get("parameters"):
        refused.append(422)
    for status, described in problems(*refused).items():
        responses.setdefault(str(status), described)
    operation["responses"] = dict(sorted(responses.items()))
    _add_example(operation)


def _add_example(operation: dict[str, Any]) -> None:
    example = EXAMPLES.get(operation["operationId"])
    if example is None:
        return
    if example.body is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = example.body
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in example.parameters:
            parameter["example"] = example.parameters[parameter["name"]]
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            for content in response["content"].values():
                content["example"] = example.answer


def document() -> str:
    """The text of docs/openapi.json. It leaves out the program's version, which changes with each release."""
    app = FastAPI(title=TITLE, version="0", description=DESCRIPTION, generate_unique_id_function=operation_id)
    routes.install(app)
    return json.dumps(schema(app), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
