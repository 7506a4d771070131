"""The endpoints of items: upsert, find, read, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.components import Components
from service.engine.items import ItemPatch
from service.engine.plan import ONLY_IDS, UNAVAILABLE
from service.engine.recommender import Trace
from service.http.dependencies import READ, ComponentsDep, TraceDep, problems
from service.http.schemas import (
    DeleteAnswer,
    FoundItem,
    FoundItems,
    ItemsBody,
    PatchAnswer,
    PatchBody,
    PatchesBody,
    PutAnswer,
    StoredItem,
)

router = APIRouter(tags=["items"])


@router.post("/items", responses=READ, response_model_exclude_none=True)
async def put_items(body: ItemsBody, components: ComponentsDep, trace: TraceDep) -> PutAnswer:
    """Add items or replace them, all or none. Once answered they are durable, and the next request finds them.

    Items that no answer contains are stored and named in `not_searchable`: those that are not available and, with a
    model of item ids, those that are not in its training data.
    """
    posted = [(item.item_id, item.attributes, item.available) for item in body.items]
    result, unknown, unavailable = await components.recommender.put(posted, trace)
    details = [detail for ids, detail in ((unknown, ONLY_IDS), (unavailable, UNAVAILABLE)) if ids]
    hidden = list(dict.fromkeys([*unknown, *unavailable]))
    answer = PutAnswer(seq=result.seq, created=result.created, updated=result.updated, searchable=not hidden)
    return answer.model_copy(update={"not_searchable": hidden, "detail": "; ".join(details)}) if hidden else answer


@router.patch("/items", responses=READ | problems(404))
async def patch_items(body: PatchesBody, components: ComponentsDep, trace: TraceDep) -> PatchAnswer:
    """Change attributes of items, such as price and stock, all or none. What is not named stays as it is.

    An item whose text stays the same is not encoded again.
    """
    patches = [
        ItemPatch(item.item_id, item.attributes, item.available, f"items[{row}].")
        for row, item in enumerate(body.items)
    ]
    return await _patched(components, patches, trace)


@router.patch("/items/{item_id:path}", responses=READ | problems(404))
async def patch_item(item_id: str, body: PatchBody, components: ComponentsDep, trace: TraceDep) -> PatchAnswer:
    """Change attributes of one item; as `PATCH /items`."""
    return await _patched(components, [ItemPatch(item_id, body.attributes, body.available)], trace)


async def _patched(components: Components, patches: list[ItemPatch], trace: Trace) -> PatchAnswer:
    seq, updated, unchanged = await components.recommender.patch(patches, trace)
    return PatchAnswer(seq=seq, updated=updated, unchanged=unchanged)


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
