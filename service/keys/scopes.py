"""Which scope an endpoint needs. The middleware and the OpenAPI document read the same table."""

from __future__ import annotations

from index.keys.base import Scope

_READS = {"GET", "HEAD", "OPTIONS"}
_RECOMMEND, _WRITE, _ADMIN, _METRICS = (frozenset[Scope]({name}) for name in ("recommend", "write", "admin", "metrics"))
ANY: frozenset[Scope] = _RECOMMEND | _WRITE | _ADMIN | _METRICS

FREE = frozenset({"healthz", "readyz", "", "static", "docs", "static-offline-docs", "openapi.json", "favicon.ico"})
"""Probes, and pages without data: the console, which logs in by key, and the description of the API."""

PRIVATE = frozenset({"metrics", "readyz", "reindex"})
"""With a private port, these are served only there."""
ON_BOTH_PORTS = frozenset({"healthz", "key"})
"""With a private port, these are served on both ports."""

# First segment of the path: the scopes that may read, and the scopes that may do anything else.
_TABLE: dict[str, tuple[frozenset[Scope], frozenset[Scope]]] = {
    "recommend": (_RECOMMEND, _RECOMMEND),
    "similar": (_RECOMMEND, _RECOMMEND),
    "popular": (_RECOMMEND, _RECOMMEND),
    "items": (_RECOMMEND | _WRITE, _WRITE),
    "events": (_WRITE, _WRITE),
    "users": (_WRITE, _WRITE),
    "placements": (_RECOMMEND | _ADMIN, _ADMIN),
    "reports": (_METRICS | _ADMIN, _ADMIN),
    "attributes": (_RECOMMEND | _WRITE, _WRITE),
    "map": (_RECOMMEND | _WRITE, _WRITE),
    "snapshots": (_ADMIN, _ADMIN),
    "evaluation": (_ADMIN, _ADMIN),
    "runs": (_ADMIN, _ADMIN),
    "recall": (_METRICS | _ADMIN, _ADMIN),
    "reindex": (_ADMIN, _ADMIN),
    "metrics": (_METRICS, _METRICS),
    "keys": (_ADMIN, _ADMIN),
    "key": (ANY, ANY),
}


def accepted_scopes(method: str, path: str) -> frozenset[Scope] | None:
    """The scopes of which a key needs one, None where no key is needed. What is not in the table needs `admin`."""
    segment = first_segment(path)
    if segment in FREE:
        return None
    read, other = _TABLE.get(segment, (_ADMIN, _ADMIN))
    return read if method in _READS else other


def is_on_port(path: str, private: bool) -> bool:
    """Whether it is served on the private port, or on the other one."""
    segment = first_segment(path)
    return segment in ON_BOTH_PORTS or (segment in PRIVATE) == private


def is_listed(path: str) -> bool:
    return first_segment(path) in FREE or first_segment(path) in _TABLE


def is_write(method: str, path: str) -> bool:
    """Whether it may change something that is stored: these requests are in the audit log."""
    accepted = accepted_scopes(method, path)
    return method not in _READS and accepted is not None and "recommend" not in accepted


def first_segment(path: str) -> str:
    """Of "/items/a" "items", of "/" "". A path that begins with "//" is not ours and is returned whole."""
    return path if path.startswith("//") or not path.startswith("/") else path.split("/", 2)[1]
