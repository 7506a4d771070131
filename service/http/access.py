"""Checks the key of a request and counts it, before the body is read."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

from index.keys.base import ApiKey
from service.http.problems import BAD_KEY, FORBIDDEN, KEY_LIMIT, KEYS_UNKNOWN, NO_KEY, Refused
from service.keys.key_limits import KeyLimits
from service.keys.key_ring import KeyRing
from service.keys.scopes import accepted_scopes
from service.metrics import Metrics

_REALM = 'Bearer realm="seqrec"'


class AccessControl:
    """What `RequestMiddleware` asks about keys."""

    def __init__(self, ring: KeyRing, limits: KeyLimits, metrics: Metrics) -> None:
        self._ring = ring
        self._limits = limits
        self._metrics = metrics

    def identify(self, scope: Scope, headers: Mapping[bytes, bytes]) -> ApiKey | None:
        """The key of the request, if its scopes allow the request; None where no key is needed. Raises Refused."""
        accepted = accepted_scopes(scope["method"], scope["path"])
        if accepted is None or self._ring.anonymous:
            return None
        if not self._ring.loaded:
            raise Refused(KEYS_UNKNOWN, f"no key can be checked: {self._ring.trouble}", Retry_After="1")
        secret = _secret(headers)
        if secret is None:
            self._metrics.refusal("no_key")
            raise Refused(NO_KEY, "this service needs an API key", WWW_Authenticate=_REALM)
        key = self._ring.find(secret)
        if key is None:
            self._metrics.refusal("bad_key")
            challenge = f'{_REALM}, error="invalid_token"'
            raise Refused(BAD_KEY, "the API key is unknown, has expired or was revoked", WWW_Authenticate=challenge)
        if not key.allows(accepted):
            self._metrics.refusal("scope")
            needed = " or ".join(sorted(accepted))
            raise Refused(
                FORBIDDEN,
                f"{scope['method']} of this path needs a key with the scope {needed}; "
                f"{key.name!r} has {', '.join(sorted(key.scopes))}",
                WWW_Authenticate=f'{_REALM}, error="insufficient_scope", scope="{" ".join(sorted(accepted))}"',
            )
        return key

    async def count(self, key: ApiKey) -> None:
        """Count a request of the key. Raises Refused beyond its rate or quota."""
        self._metrics.key_request(key.name)
        refused = await self._limits.refused(key)
        if refused is not None:
            limit, seconds = refused
            self._metrics.refusal(limit.partition(" ")[0])
            raise Refused(KEY_LIMIT, f"the key {key.name!r} has a {limit}", Retry_After=str(seconds))


def _secret(headers: Mapping[bytes, bytes]) -> str | None:
    """Of `Authorization: Bearer`, else of `X-API-Key`."""
    scheme, _, value = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() != b"bearer":  # a proxy may use another scheme for itself
        value = headers.get(b"x-api-key", b"")
    return value.strip().decode("latin-1") or None
