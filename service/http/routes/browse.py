"""The endpoints for looking around: attributes and their values, users, snapshots, the map. They change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

from index.catalogue.base import Catalogue
from index.catalogue.histories import Event
from index.snapshot.snapshot import SnapshotStore, read_manifest
from seqrec.errors import SnapshotError
from service.engine.browse import MOST_READ, AttributeSummary, project, sample_users, summarize
from service.http.browse_schemas import (
    AttributesAnswer,
    AttributeView,
    EvaluationAnswer,
    EventView,
    MapAnswer,
    SnapshotsAnswer,
    SnapshotView,
    UsersAnswer,
    UserView,
    ValueView,
)
from service.http.dependencies import ComponentsDep, FilterDep, TraceDep, problems

router = APIRouter(tags=["browse"])

_MOST_CHARACTERS = 100_000
"""Of an evaluation."""


@router.get("/attributes", responses=problems(422, 503, 504))
async def attributes(
    components: ComponentsDep,
    trace: TraceDep,
    filter: FilterDep,
    values: Annotated[int, Query(ge=0, le=200, description="how many of the most frequent values of each")] = 20,
) -> AttributesAnswer:
    """Which attributes the items have, of which types, with their frequent values: what a filter can be made of."""
    summary = await components.recommender.inspect(summarize, filter, trace=trace)
    return AttributesAnswer(
        items=summary.items, read=summary.read, attributes=[_attribute(one, values) for one in summary.attributes]
    )


@router.get("/map", responses=problems(422, 503, 504))
async def catalogue_map(
    components: ComponentsDep,
    trace: TraceDep,
    attribute: Annotated[str | None, Query(description="whose values come with the points")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_READ)] = MOST_READ,
) -> MapAnswer:
    """The catalogue in two dimensions: the first two principal components of the items' vectors."""
    made = await components.recommender.inspect(project, attribute, limit, trace=trace)
    x, y = ([round(float(value), 4) for value in made.places[:, axis]] for axis in (0, 1))
    return MapAnswer(items=made.items, explained=made.explained, ids=made.item_ids, x=x, y=y, values=made.values)


@router.get("/users", responses=problems(422, 503), response_model_exclude_none=True)
async def users(
    components: ComponentsDep,
    trace: TraceDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    events: Annotated[int, Query(ge=1, le=100, description="how many of each user's newest events")] = 5,
) -> UsersAnswer:
    """A sample of the users of whom events are stored; others each time."""
    found = await components.recommender.read(sample_users, components.histories, limit, events, trace=trace)
    return UsersAnswer(users=[_user(user_id, its_events) for user_id, its_events in found])


@router.get("/snapshots", responses=problems(503))
async def snapshots(components: ComponentsDep, trace: TraceDep) -> SnapshotsAnswer:
    """The snapshots in SEQREC_HOME of the process that answers, and which one is published."""
    publications = await components.recommender.read(_published, components.catalogue, trace=trace)
    return SnapshotsAnswer(snapshots=await asyncio.to_thread(_snapshots, components.settings.home, publications))


@router.get("/evaluation", responses=problems(503))
async def evaluation(components: ComponentsDep) -> EvaluationAnswer:
    """The figures of the last evaluation that was written to SEQREC_HOME."""
    return EvaluationAnswer(markdown=await asyncio.to_thread(_text_of, components.settings.home / "evaluation.md"))


def _text_of(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_CHARACTERS)
    except OSError:
        return None


def _attribute(one: AttributeSummary, most: int) -> AttributeView:
    return AttributeView(
        name=one.name,
        type=one.type,
        count=one.count,
        distinct=None if one.many else len(one.values),
        minimum=one.low,
        maximum=one.high,
        values=[ValueView(value=value, count=count) for value, count in one.values.most_common(most)],
    )


def _user(user_id: str, events: Sequence[Event]) -> UserView:
    return UserView(
        user_id=user_id,
        events=[EventView(item_id=one.item_id, timestamp=one.timestamp, event_id=one.event_id) for one in events],
    )


def _published(catalogue: Catalogue) -> list[str]:
    """Ids of snapshots, the served one first."""
    return [change.snapshot_id for change in catalogue.publications() if change.snapshot_id is not None]


def _snapshots(home: Path, publications: Sequence[str]) -> list[SnapshotView]:
    store = SnapshotStore(home)
    return [_snapshot(store, snapshot_id, publications) for snapshot_id in reversed(store.list())]


def _snapshot(store: SnapshotStore, snapshot_id: str, publications: Sequence[str]) -> SnapshotView:
    served, published = publications[:1] == [snapshot_id], snapshot_id in publications
    try:
        manifest = read_manifest(store.path_of(snapshot_id))
    except SnapshotError as error:
        return SnapshotView(id=snapshot_id, served=served, published=published, problem=str(error))
    return SnapshotView(
        id=snapshot_id,
        served=served,
        published=published,
        created=manifest.created,
        seq=manifest.seq,
        items=manifest.count,
        model=manifest.model,
        checkpoint=manifest.checkpoint,
        hybrid=manifest.hybrid,
        dim=manifest.dim,
        metric=manifest.metric,
        precision=manifest.precision,
        index=manifest.index,
        recall=manifest.recall,
        bytes=sum(record.size for record in manifest.files.values()),
    )
