"""The endpoints of items: upsert, find, read, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.engine.plan import ONLY_IDS, UNAVAILABLE
from service.http.dependencies import READ, AuditDep, ComponentsDep, TraceDep, problems
from service.http.schemas import DeleteAnswer, FoundItem, FoundItems, ItemPath, ItemsBody, PutAnswer, StoredItem

router = APIRouter(tags=["items"])


@router.post("/items", responses=READ, response_model_exclude_none=True)
async def put_items(body: ItemsBody, components: ComponentsDep, trace: TraceDep, audit: AuditDep) -> PutAnswer:
    """Add items or replace them, all or none. Once answered they are durable, and the next request finds them.

    Items that no answer contains are stored and named in `not_searchable`: those that are not available and, with a
    model of item ids, those that are not in its training data.
    """
    audit["items"] = len(body.items)
    audit["first"] = body.items[0].item_id
    posted = [(item.item_id, item.attributes, item.available) for item in body.items]
    result, unknown, unavailable = await components.recommender.put(posted, trace)
    audit["seq"] = result.seq
    details = [detail for ids, detail in ((unknown, ONLY_IDS), (unavailable, UNAVAILABLE)) if ids]
    hidden = list(dict.fromkeys([*unknown, *unavailable]))
    answer = PutAnswer(seq=result.seq, created=result.created, updated=result.updated, searchable=not hidden)
    return answer.model_copy(update={"not_searchable": hidden, "detail": "; ".join(details)}) if hidden else answer


@router.get("/items", responses=problems(422, 503))
async def find_items(
    components: ComponentsDep,
    trace: TraceDep,
    q: Annotated[str, Query(max_length=1000, description="words; the last may be the beginning of one")],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> FoundItems:
    """Items whose attributes hold all the words."""
    items = await components.recommender.find(q, limit, trace)
    return FoundItems(
        items=[
            FoundItem(item_id=item.item_id, attributes=dict(item.attributes), available=item.available)
            for item in items
        ]
    )


@router.get("/items/{item_id:path}", responses=problems(404, 422, 503))
async def get_item(item_id: ItemPath, components: ComponentsDep, trace: TraceDep) -> StoredItem:
    """An item as it is stored. Its id may hold a slash, plain or encoded."""
    seq, item, searchable = await components.recommender.get(item_id, trace)
    return StoredItem(
        item_id=item.item_id,
        attributes=dict(item.attributes),
        available=item.available,
        seq=seq,
        searchable=searchable,
    )


@router.delete("/items/{item_id:path}", responses=problems(404, 422, 503))
async def delete_item(item_id: ItemPath, components: ComponentsDep, trace: TraceDep, audit: AuditDep) -> DeleteAnswer:
    """Take an item out of answers and histories."""
    audit["item_id"] = item_id
    audit["seq"] = seq = await components.recommender.delete(item_id, trace)
    return DeleteAnswer(seq=seq)
