"""An example of each operation for the OpenAPI document: what is sent and what is answered.

A test sends each of them to a service, and reads each answer with the operation's model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_STATE = {"metric": "dot", "model": "5f2a9c0e", "snapshot": "20261129T110203-1a2b3c", "seq": 8113}
_DESK = {"item_id": "desk-1", "attributes": {"title": "Oak desk", "brand": "Acme", "price": 120}}
_LAMP = {"item_id": "lamp-1", "attributes": {"title": "Desk lamp brass", "brand": "Lumen", "price": 30.5}}
_ANSWER = {"items": [{**_LAMP, "score": 3.42}], "source": "model", "unknown": [], "degraded": [], **_STATE}
_RECOMMEND = {"history": ["desk-1", {"attributes": {"title": "Desk lamp"}}], "k": 5, "filter": {"brand": "Lumen"}}
_JOB = {"id": "0f1e2d3c4b5a", "state": "running", "done": 4000, "total": 8113}


@dataclass(frozen=True)
class Example:
    """`path`: values of the parameters of the path and of the query. `body`: None where there is none."""

    answer: Any
    body: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)


EXAMPLES: dict[str, Example] = {
    "recommend": Example(_ANSWER, _RECOMMEND),
    "recommend_batch": Example({"answers": [_ANSWER]}, {"requests": [_RECOMMEND]}),
    "similar": Example({"items": [{**_LAMP, "score": 0.71}], "degraded": [], **_STATE}, {"item_id": "desk-1", "k": 5}),
    "put_items": Example(
        {"seq": 8114, "created": 1, "updated": 1, "searchable": True}, {"items": [_DESK, {**_LAMP, "available": True}]}
    ),
    "find_items": Example({"items": [{**_DESK, "available": True}]}, parameters={"q": "oak de", "limit": 10}),
    "get_item": Example(
        {**_DESK, "available": True, "seq": 8101, "searchable": True}, parameters={"item_id": "desk-1"}
    ),
    "delete_item": Example({"seq": 8115}, parameters={"item_id": "desk-1"}),
    "post_events": Example(
        {"stored": 1, "known": 0, "unknown": []},
        {"events": [{"user_id": "customer-17850", "item_id": "desk-1", "event_id": "order-1001-1"}]},
    ),
    "delete_user": Example({"deleted": 12}, parameters={"user_id": "customer-17850"}),
    "reindex": Example({**_JOB, "state": "queued", "done": 0, "total": None}),
    "reindex_progress": Example(_JOB, parameters={"job_id": "0f1e2d3c4b5a"}),
    "healthz": Example({"status": "alive"}),
    "readyz": Example(
        {
            "status": "ready",
            "degraded": [],
            "promises": "full",
            "durability_warnings": [],
            "catalogue": "9b1c",
            "snapshot": _STATE["snapshot"],
            "seq": 8113,
            "head": 8113,
            "worker": 4711,
        }
    ),
    "key": Example({"name": "shop", "scopes": ["recommend"], "expires": 1804000000.0, "rate": "100/second"}),
    "metrics": Example('seqrec_requests_total{method="POST",route="/recommend",status="200"} 1042.0\n'),
}
