"""The OpenAPI document. The copy in the repository is made by `python -m service.http.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.http import routes
from service.http.schemas import Problem

TITLE = "seqrec"
DESCRIPTION = (
    "Sequential recommendation from item text: send a user's history, get the next items. "
    "New items are recommendable as soon as they are posted."
)


def schema(app: FastAPI) -> dict[str, Any]:
    """The app's document, built once."""
    if app.openapi_schema is None:
        built = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = built["components"]["schemas"]
        # FastAPI describes its own validation errors; they are answered as a Problem instead.
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = Problem.model_json_schema()
        app.openapi_schema = built
    return app.openapi_schema


def document() -> str:
    """The text of docs/openapi.json. It leaves out the program's version, which changes with each release."""
    app = FastAPI(title=TITLE, version="0", description=DESCRIPTION)
    routes.install(app)
    return json.dumps(schema(app), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
