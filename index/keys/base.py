"""API keys: who may call the service, for what, how often and until when.

A key is a random secret of 256 bits. Only its SHA-256 is stored. A slow password hash would add nothing: it makes
guessing expensive, and a secret of 256 random bits cannot be guessed at any speed. It would cost every request tens of
milliseconds, though.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from seqrec.data.durations import parse_duration
from seqrec.errors import InputError, there_are

Scope = Literal["recommend", "write", "admin", "metrics"]
SCOPES: dict[Scope, str] = {
    "recommend": "recommendations, similar items, finding and reading items",
    "write": "items, events and users: add, change, delete, read back",
    "metrics": "the metrics for Prometheus",
    "admin": "everything, reindexes as well",
}
SECRET_PREFIX = "seqrec_"
"""Scanners for leaked secrets recognise keys by it."""
_SECRET_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_SECONDS = 100 * 365 * 86_400
_LIMIT = re.compile(r"([1-9]\d{0,11})/(s|second|m|minute|h|hour|d|day)")
_PERIODS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is stored of a key. Times in Unix seconds.

    `digest`: SHA-256 of the secret, in hexadecimal. `rate`, `quota`: limits such as "100/second", which `limits.parse`
    reads.
    """

    name: str
    digest: str
    scopes: frozenset[Scope]
    created: float
    expires: float | None = None
    revoked: float | None = None
    rate: str | None = None
    quota: str | None = None

    def state(self, now: float) -> Literal["active", "expired", "revoked"]:
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "active"

    def allows(self, accepted: Iterable[Scope]) -> bool:
        """Whether it has one of these scopes; `admin` includes all of them."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(accepted)


class KeyStore(Protocol):
    """Safe for several threads and processes. Methods raise CatalogueError where the store cannot be used.

    Revoked and expired keys stay, so that a service that had keys never looks like one that has none.
    """

    def add(self, key: ApiKey) -> None:
        """Durable on return. Raises InputError if an active key has the name; another one of that name is replaced."""
        ...

    def revoke(self, name: str, when: float) -> ApiKey:
        """Durable on return; the key as it is now. A revoked key stays as it is. Raises InputError if there is none."""
        ...

    def all(self) -> list[ApiKey]:
        """All keys, by name."""
        ...

    def version(self) -> int:
        """A number that every change of the keys changes; cheap to read."""
        ...

    def close(self) -> None: ...


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def make_key(
    name: str,
    scopes: Iterable[Scope],
    expires_in: float | None = None,
    rate: str | None = None,
    quota: str | None = None,
) -> tuple[ApiKey, str]:
    """A new key, and its secret, which is stored nowhere. `rate` and `quota` as `parse_limit` returns them.

    Raises InputError.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"a name is 1 to 64 letters, digits, dots, dashes and underscores, not {name!r}", "name")
    granted = frozenset(scopes)
    if not granted:
        raise InputError(f"at least one of {', '.join(SCOPES)} is needed", "scope")
    if unknown := sorted(granted - SCOPES.keys()):
        raise InputError(f"no scope {unknown[0]!r}{there_are(unknown[0], list(SCOPES))}", "scope")
    secret = SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    now = time.time()
    expires = None if expires_in is None else now + expires_in
    return ApiKey(name, digest_of(secret), granted, now, expires, rate=rate, quota=quota), secret


def read_key(
    name: str, scopes: Iterable[Scope], expires: str | None, rate: str | None, quota: str | None
) -> tuple[ApiKey, str]:
    """`make_key` of what a person wrote. Raises InputError."""
    return make_key(
        name,
        scopes,
        None if expires is None else parse_expiry(expires),
        None if rate is None else parse_limit(rate, "rate"),
        None if quota is None else parse_limit(quota, "quota"),
    )


def parse_expiry(text: str) -> float:
    """ "90d" -> seconds. Raises InputError."""
    seconds = parse_duration(text) or 0.0
    if not 0 < seconds <= _MAX_SECONDS:
        raise InputError(f"a time such as 90d, 12h, 30m or 45s, at most 100 years, not {text!r}", "expires")
    return seconds


def parse_limit(text: str, field: str) -> str:
    """ "100/s" -> "100/second". Raises InputError."""
    match = _LIMIT.fullmatch(text.strip())
    if not match:
        raise InputError(f"a number of requests a second, minute, hour or day, such as 100/s, not {text!r}", field)
    return f"{match[1]}/{_PERIODS[match[2][0]]}"


def check_free(existing: ApiKey | None) -> None:
    """Raises InputError if a new key cannot take the place of this one."""
    if existing is not None and existing.state(time.time()) == "active":
        raise InputError(f"there is an active key {existing.name!r}; revoke it first, or choose another name", "name")


def unknown_name(name: str) -> InputError:
    return InputError(f"there is no key {name!r}; `seqrec keys list` shows all", "name")
