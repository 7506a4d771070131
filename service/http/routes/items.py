"""The endpoints of items: upsert, find, read, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from seqrec.data.items import MAX_ATTRIBUTES
from service.components import Components
from service.engine.browse import Place, find_page, read_found, read_items
from service.engine.browse import find_items as find_items_in
from service.engine.plan import ONLY_IDS, UNAVAILABLE
from service.engine.posted_items import ItemPatch
from service.engine.trace import Trace
from service.http.cursor import place_cursor, read_place
from service.http.dependencies import READ, AuditDep, ComponentsDep, FilterDep, TraceDep, problems
from service.http.schemas import (
    DeleteAnswer,
    FoundItem,
    FoundItems,
    ItemPath,
    ItemsBody,
    PatchAnswer,
    PatchBody,
    PatchesBody,
    PutAnswer,
    StoredItem,
)

router = APIRouter(tags=["items"])


@router.post("/items", responses=READ, response_model_exclude_none=True)
async def put_items(body: ItemsBody, components: ComponentsDep, trace: TraceDep, audit: AuditDep) -> PutAnswer:
    """Create or replace items, all or none. When answered they are durable, and the next request can return them.

    Items that are stored but never returned are listed in `not_searchable`: those that are not available and, with a
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


@router.patch("/items", responses=READ | problems(404))
async def patch_items(body: PatchesBody, components: ComponentsDep, trace: TraceDep, audit: AuditDep) -> PatchAnswer:
    """Change attributes of items, such as price and stock, all or none. What is not named stays as it is.

    An item whose text stays the same is not encoded again.
    """
    patches = [
        ItemPatch(item.item_id, item.attributes, item.available, f"items[{row}].")
        for row, item in enumerate(body.items)
    ]
    audit["items"] = len(patches)
    audit["first"] = patches[0].item_id
    return await _patched(components, patches, trace)


@router.patch("/items/{item_id:path}", responses=READ | problems(404))
async def patch_item(
    item_id: ItemPath, body: PatchBody, components: ComponentsDep, trace: TraceDep, audit: AuditDep
) -> PatchAnswer:
    """Change attributes of one item; as `PATCH /items`."""
    audit["item_id"] = item_id
    return await _patched(components, [ItemPatch(item_id, body.attributes, body.available)], trace)


async def _patched(components: Components, patches: list[ItemPatch], trace: Trace) -> PatchAnswer:
    seq, updated, unchanged = await components.recommender.patch(patches, trace)
    return PatchAnswer(seq=seq, updated=updated, unchanged=unchanged)


@router.get("/items", responses=problems(422, 429, 503, 504), response_model_exclude_none=True)
async def find_items(
    components: ComponentsDep,
    trace: TraceDep,
    filter: FilterDep,
    q: Annotated[
        str | None,
        Query(max_length=1000, description="words; the last may be the beginning of one; none: popular items"),
    ] = None,
    id: Annotated[list[str] | None, Query(max_length=100, description="these items, instead of words")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    fields: Annotated[
        list[str] | None,
        Query(max_length=MAX_ATTRIBUTES, description="as in POST /recommend; repeat it for several attributes"),
    ] = None,
    paginate: Annotated[
        bool, Query(description="answer with `next`, a cursor to the following page; items with most events come first")
    ] = False,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before")] = None,
) -> FoundItems:
    """Items whose attributes contain all the words and pass the filter, the most popular items, or some by their ids.

    With a filter or pages 1,000 that have the words are looked at. Ids that are in no catalogue are left out. Pages
    neither repeat nor leave out an item, whatever comes and goes meanwhile.
    """
    recommender, catalogue = components.recommender, components.catalogue
    place: Place | None = None
    if id is not None:
        items = await recommender.read(read_items, catalogue, id, trace=trace)
    elif paginate or cursor is not None:
        place = None if cursor is None else read_place(cursor)
        items, place = await recommender.inspect(find_page, catalogue, q or "", filter, limit, place, trace=trace)
    elif q and filter is None:
        items = await recommender.read(read_found, catalogue, q, limit, trace=trace)
    else:
        items = await recommender.inspect(find_items_in, catalogue, q or "", filter, limit, trace=trace)
    items, degraded = await recommender.limited(items, fields, trace)
    return FoundItems(
        items=[
            FoundItem(item_id=item.item_id, attributes=dict(item.attributes), available=item.available)
            for item in items
        ],
        degraded=degraded,
        next=None if place is None else place_cursor(place),
    )


@router.get("/items/{item_id:path}", responses=problems(404, 422, 429, 503, 504))
async def get_item(item_id: ItemPath, components: ComponentsDep, trace: TraceDep) -> StoredItem:
    """An item as it is stored. Its id may contain slashes, plain or encoded."""
    seq, item, searchable = await components.recommender.get(item_id, trace)
    return StoredItem(
        item_id=item.item_id,
        attributes=dict(item.attributes),
        available=item.available,
        seq=seq,
        searchable=searchable,
    )


@router.delete("/items/{item_id:path}", responses=problems(404, 422, 429, 503, 504))
async def delete_item(item_id: ItemPath, components: ComponentsDep, trace: TraceDep, audit: AuditDep) -> DeleteAnswer:
    """Delete an item. It is no longer returned, and no longer read in histories."""
    audit["item_id"] = item_id
    audit["seq"] = seq = await components.recommender.delete(item_id, trace)
    return DeleteAnswer(seq=seq)
