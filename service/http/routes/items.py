"""The endpoints of items: upsert, find, read, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.engine.plan import ONLY_IDS
from service.http.dependencies import READ, ComponentsDep, TraceDep, problems
from service.http.schemas import DeleteAnswer, FoundItems, ItemsBody, ItemView, PutAnswer, StoredItem

router = APIRouter(tags=["items"])


@router.post("/items", responses=READ, response_model_exclude_none=True)
async def put_items(body: ItemsBody, components: ComponentsDep, trace: TraceDep) -> PutAnswer:
    """Add items or replace them, all or none. Once answered they are durable, and the next request finds them.

    A model that knows items by id cannot search those that its training did not see: they are stored, and named.
    """
    posted = [(item.item_id, item.attributes, item.available) for item in body.items]
    result, unknown = await components.recommender.put(posted, trace)
    answer = PutAnswer(seq=result.seq, created=result.created, updated=result.updated, searchable=not unknown)
    return answer.model_copy(update={"not_searchable": unknown, "detail": ONLY_IDS}) if unknown else answer


@router.get("/items", responses=problems(422, 503))
async def find_items(
    components: ComponentsDep,
    trace: TraceDep,
    q: Annotated[str, Query(max_length=1000, description="words; the last may be the beginning of one")],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> FoundItems:
    """Items whose attributes hold all the words."""
    items = await components.recommender.find(q, limit, trace)
    return FoundItems(items=[ItemView(item_id=item.item_id, attributes=dict(item.attributes)) for item in items])


@router.get("/items/{item_id:path}", responses=problems(404, 422, 503))
async def get_item(item_id: str, components: ComponentsDep, trace: TraceDep) -> StoredItem:
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
async def delete_item(item_id: str, components: ComponentsDep, trace: TraceDep) -> DeleteAnswer:
    """Take an item out of answers and histories."""
    return DeleteAnswer(seq=await components.recommender.delete(item_id, trace))
