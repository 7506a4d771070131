"""An example of each operation for the OpenAPI document: a request and its answer.

A test sends each of them to a service, and reads each answer with the operation's model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_STATE: dict[str, Any] = {
    "metric": "dot",
    "model": "5f2a9c0e",
    "snapshot": "20261129T110203-1a2b3c",
    "seq": 8113,
    "recommendation_id": "AWqaa0tbR1fUZ7cUgQAAAEI",
}
_DESK = {"item_id": "desk-1", "attributes": {"title": "Oak desk", "brand": "Acme", "price": 120}}
_LAMP = {"item_id": "lamp-1", "attributes": {"title": "Desk lamp brass", "brand": "Lumen", "price": 30.5}}
_ANSWER = {"items": [{**_LAMP, "score": 3.42}], "source": "model", "unknown": [], "degraded": [], **_STATE}
_RECOMMEND = {"history": ["desk-1", {"attributes": {"title": "Desk lamp"}}], "k": 5, "filter": {"brand": "Lumen"}}
_USER = {
    "user_id": "customer-17850",
    "events": [{"item_id": "desk-1", "timestamp": 1795000000.0, "event_id": "order-1001-1"}],
}
_PLACEMENT: dict[str, Any] = {
    "name": "product-page",
    "version": 8116,
    "rules": {"k": 8, "boost": [{"filter": {"brand": "Acme"}, "multiply": 1.2}], "at_most": {"brand": 2}},
}
_JOB = {"id": "0f1e2d3c4b5a", "state": "running", "done": 4000, "total": 8113}
_KEY: dict[str, Any] = {
    "name": "shop",
    "state": "active",
    "scopes": ["recommend"],
    "created": 1795000000.0,
    "expires": 1802776000.0,
    "revoked": None,
    "rate": "100/second",
    "quota": None,
}


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
    "find_items": Example(
        {"items": [{**_DESK, "available": True}]},
        parameters={
            "q": "oak de",
            "limit": 10,
            "filter": '{"brand": "Acme"}',
            "fields": ["title"],
            "id": ["desk-1"],
            "paginate": True,
            "cursor": "WzE3OTUwMDAwMDAuMCwgMTIuMCwgImRlc2stMSJd",
        },
    ),
    "get_item": Example(
        {**_DESK, "available": True, "seq": 8101, "searchable": True}, parameters={"item_id": "desk-1"}
    ),
    "delete_item": Example({"seq": 8115}, parameters={"item_id": "desk-1"}),
    "post_events": Example(
        {"stored": 1, "known": 0, "unknown": []},
        {"events": [{"user_id": "customer-17850", "item_id": "desk-1", "event_id": "order-1001-1"}]},
    ),
    "event_days": Example(
        {
            "users": 4074,
            "events": 120431,
            "today": 815,
            "days": [{"day": "2026-11-30", "type": "purchase", "events": 815}],
        },
        parameters={"item_id": "desk-1"},
    ),
    "delete_user": Example({"deleted": 12}, parameters={"user_id": "customer-17850"}),
    "popular": Example(
        {"items": [{**_LAMP, "score": 42.0}], "since": 1795000000.0, "degraded": [], **_STATE}, {"window": "7d", "k": 5}
    ),
    "reports": Example(
        {
            "by": "placement",
            "since": "2026-11-01",
            "until": "2026-11-30",
            "rows": [
                {
                    "placement": "product-page",
                    "experiment": None,
                    "group": "product-page",
                    "impressions": 2000,
                    "clicks": 100,
                    "carts": 20,
                    "purchases": 10,
                    "revenue": 420.5,
                    "click_through": 0.05,
                    "click_through_interval": (0.0413, 0.0605),
                    "conversion": 0.005,
                    "conversion_interval": (0.0027, 0.0092),
                    "revenue_per_impression": 0.21025,
                    "revenue_per_impression_interval": (0.08, 0.34),
                }
            ],
            "experiments": [],
            "shadows": [
                {
                    "placement": "product-page",
                    "snapshot": "20261129T110203-008113-1a2b3c",
                    "compared": 812,
                    "left_out": 3,
                    "overlap": 0.62,
                    "same_first": 0.41,
                    "seconds_ratio": 1.2,
                }
            ],
        },
        parameters={"by": "placement", "days": 30, "placement": "product-page"},
    ),
    "list_placements": Example({"placements": [_PLACEMENT]}),
    "get_placement": Example(_PLACEMENT, parameters={"name": "product-page"}),
    "put_placement": Example(_PLACEMENT, _PLACEMENT["rules"], {"name": "product-page"}),
    "delete_placement": Example({"seq": 8117}, parameters={"name": "product-page"}),
    "attributes": Example(
        {
            "items": 3145,
            "read": 3145,
            "attributes": [
                {
                    "name": "brand",
                    "type": "text",
                    "count": 3100,
                    "distinct": 2,
                    "minimum": None,
                    "maximum": None,
                    "values": [{"value": "Acme", "count": 2000}, {"value": "Lumen", "count": 1100}],
                }
            ],
        },
        parameters={"filter": '{"price": {"gte": 10}}', "values": 20},
    ),
    "catalogue_map": Example(
        {"items": 3145, "explained": [0.21, 0.08], "ids": ["desk-1"], "x": [0.12], "y": [-0.4], "values": ["Acme"]},
        parameters={"attribute": "brand", "limit": 20000, "item": "desk-1"},
    ),
    "users": Example({"users": [_USER]}, parameters={"limit": 10, "events": 5, "prefix": "customer-1"}),
    "get_user": Example(_USER, parameters={"user_id": "customer-17850", "limit": 100, "cursor": "17@1795000000.0"}),
    "remove_event": Example({"removed": True}, parameters={"user_id": "customer-17850", "event_id": "order-1001-1"}),
    "patch_items": Example(
        {"seq": 8118, "updated": 1, "unchanged": 0}, {"items": [{"item_id": "desk-1", "attributes": {"price": 99}}]}
    ),
    "patch_item": Example(
        {"seq": 8119, "updated": 1, "unchanged": 0},
        {"attributes": {"price": 99}, "available": True},
        {"item_id": "desk-1"},
    ),
    "snapshots": Example({"snapshots": [{"id": _STATE["snapshot"], "served": True, "published": True, "items": 3145}]}),
    "publish_snapshot": Example(
        {"snapshot": _STATE["snapshot"], "seq": 3146}, parameters={"snapshot_id": _STATE["snapshot"]}
    ),
    "snapshot_changes": Example(
        {
            "before": "20261128T110203-008001-9f8e7d",
            "after": _STATE["snapshot"],
            "users": [
                {
                    "user_id": "customer-17850",
                    "history": ["desk-1"],
                    "before": ["lamp-1", "desk-2"],
                    "after": ["desk-2", "lamp-1"],
                }
            ],
            "titles": {"lamp-1": "Desk lamp brass", "desk-2": "Pine desk"},
        },
        parameters={
            "snapshot_id": _STATE["snapshot"],
            "since": "20261128T110203-008001-9f8e7d",
            "users": 10,
            "k": 10,
        },
    ),
    "evaluation": Example({"markdown": None}),
    "runs": Example(
        {
            "runs": [
                {
                    "path": "run",
                    "state": "done",
                    "updated": 1795000000.0,
                    "model": "sasrec",
                    "checkpoint": "5f2a9c0e",
                    "seconds": 181.4,
                    "curves": [
                        {
                            "stage": "joint",
                            "begins": 0,
                            "ends": 200,
                            "loss": [(100, 6.2), (200, 5.7)],
                            "ndcg": [(200, 0.0912)],
                        }
                    ],
                }
            ]
        }
    ),
    "recall": Example(
        {
            "snapshot": _STATE["snapshot"],
            "index": "IVF1024,Flat",
            "items": 3145,
            "passing": 310,
            "queries": 100,
            "recall": 0.998,
        },
        parameters={"filter": '{"brand": "Acme"}'},
    ),
    "reindex_jobs": Example({"jobs": [_JOB]}),
    "reindex": Example({**_JOB, "state": "queued", "done": 0, "total": None}),
    "reindex_progress": Example(_JOB, parameters={"job_id": "0f1e2d3c4b5a"}),
    "healthz": Example({"status": "alive"}),
    "readyz": Example(
        {
            "status": "ready",
            "degraded": [],
            "durability": "full",
            "durability_warnings": [],
            "catalogue": "9b1c",
            "snapshot": _STATE["snapshot"],
            "seq": 8113,
            "head": 8113,
            "worker": 4711,
        }
    ),
    "list_keys": Example({"keys": [_KEY]}),
    "create_key": Example(
        {**_KEY, "key": "seqrec_mQ4c0a7VqFq3yC0b9yqkq8b1nXk1m5oQxkq0c2d3e4f"},
        {"name": "shop", "scopes": ["recommend"], "expires": "90d", "rate": "100/s"},
    ),
    "revoke_key": Example({**_KEY, "state": "revoked", "revoked": 1795400000.0}, parameters={"name": "shop"}),
    "key": Example({"name": "shop", "scopes": ["recommend"], "expires": 1804000000.0, "rate": "100/second"}),
    "metrics": Example('seqrec_requests_total{method="POST",route="/recommend",status="200"} 1042.0\n'),
}
