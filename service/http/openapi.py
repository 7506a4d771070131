"""Writes the OpenAPI document that is checked in: `python -m service.http.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys

from service.app import create_app
from service.settings import Settings


def document() -> str:
    """The document as it is checked in. The version of the program is left out: it changes with each release."""
    schema = create_app(Settings()).openapi()
    schema["info"]["version"] = "0"
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
