"""Routes that answer valid requests without FastAPI's routing, dependencies and checks of its own answers.

FastAPI still declares the endpoints: the OpenAPI document is made of them, and every request whose body is not valid
goes to them, so an error is answered by the same code everywhere.
"""

from __future__ import annotations

import json
from typing import Any, get_type_hints

from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

_SKIPPED = "not_direct"


class DirectRoute(BaseRoute):
    """For an endpoint with the parameters `body`, `components` and `trace`, behind `RequestMiddleware`."""

    def __init__(self, route: APIRoute) -> None:
        hints = get_type_hints(route.endpoint)
        self.path = route.path
        self.methods = frozenset(route.methods or ())
        self._endpoint = route.endpoint
        self._body: TypeAdapter[Any] = TypeAdapter(hints["body"])
        self._answer: TypeAdapter[Any] = TypeAdapter(route.response_model)
        self._exclude_unset = route.response_model_exclude_unset

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = scope["path"] == self.path and scope["method"] in self.methods and _SKIPPED not in scope["state"]
        return (Match.FULL, {"route": self}) if found and _is_json(scope) else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()  # the middleware has read the whole body
        try:
            body = self._body.validate_python(json.loads(message["body"]))
        except (ValueError, RecursionError):
            await self._refuse(message, scope, receive, send)
            return
        components = scope["app"].state.startup.components
        answer = await self._endpoint(body=body, components=components, trace=scope["state"]["trace"])
        if not isinstance(answer, Response):  # a batch is one already
            content = self._answer.dump_json(answer, exclude_unset=self._exclude_unset)
            answer = Response(content, media_type="application/json")
        await answer(scope, receive, send)

    async def _refuse(self, message: Message, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI's own route finds and names what is wrong."""
        given = False

        async def replay() -> Message:
            nonlocal given
            first, given = not given, True
            return message if first else await receive()

        scope["state"][_SKIPPED] = True
        await scope["router"].app(scope, replay, send)


def _is_json(scope: Scope) -> bool:
    """Whether the header says so; the middleware has refused other types, but not a missing header."""
    return any(name == b"content-type" and value.startswith(b"application/json") for name, value in scope["headers"])
