"""The Python client of the HTTP API: `Client`, and `AsyncClient` with the same methods. Needs the extra `[client]`.

    from seqrec.client import Client

    with Client("http://localhost:8000", key="seqrec_...") as client:
        client.recommend(["85123A", {"title": "Red retrospot cake stand"}], k=5).items

It imports neither torch nor the rest of seqrec.
"""

from seqrec.client.aio import AsyncClient
from seqrec.client.errors import (
    ApiError,
    BulkError,
    Forbidden,
    InvalidRequest,
    NoAnswer,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
)
from seqrec.client.requests import Event, Query
from seqrec.client.results import (
    EventsStored,
    FoundItem,
    ItemsStored,
    Job,
    KeyInfo,
    Popular,
    Readiness,
    Reason,
    Recommendation,
    RecommendedItem,
    Report,
    Similar,
    StoredItem,
    UserEvents,
)
from seqrec.client.retries import RetryPolicy
from seqrec.client.sync import Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "BulkError",
    "Client",
    "Event",
    "EventsStored",
    "Forbidden",
    "FoundItem",
    "InvalidRequest",
    "ItemsStored",
    "Job",
    "KeyInfo",
    "NoAnswer",
    "NotFound",
    "Popular",
    "Query",
    "RateLimited",
    "Readiness",
    "Reason",
    "Recommendation",
    "RecommendedItem",
    "Report",
    "RetryPolicy",
    "Similar",
    "StoredItem",
    "Unauthorized",
    "Unavailable",
    "UserEvents",
]
