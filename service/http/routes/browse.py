"""The endpoints for browsing: attributes, users, snapshots, training runs, the map; and publishing a snapshot."""

from __future__ import annotations

import asyncio
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

from index.catalogue.base import Catalogue
from index.catalogue.histories import Event
from index.snapshot.named import named_by
from index.snapshot.publication import publish
from index.snapshot.snapshot import SnapshotStore, read_manifest
from seqrec.data.items import normalize_id
from seqrec.errors import SnapshotError, SnapshotNotFound
from seqrec.training_run import read_curves, read_metadata, read_metrics, run_state
from service.engine.browse import MOST_POINTS, AttributeSummary, project, served_recall, some_users, summarize
from service.http.browse_schemas import (
    AttributesAnswer,
    AttributeView,
    ChangesAnswer,
    CurveView,
    EvaluationAnswer,
    EventView,
    MapAnswer,
    PublishedAnswer,
    RecallAnswer,
    RunsAnswer,
    RunView,
    SnapshotsAnswer,
    SnapshotView,
    UsersAnswer,
    UserView,
    ValueView,
)
from service.http.dependencies import AuditDep, ComponentsDep, FilterDep, TraceDep, problems
from service.http.problems import without_directories
from service.jobs import compare_snapshots
from service.live.side import SideStatus

router = APIRouter(tags=["browse"])

_MOST_CHARACTERS = 100_000
"""Of an evaluation."""
_MOST_RUNS = 20
_NO_RUNS = {"snapshots", "checkpoints", "jobs"}
"""Folders of SEQREC_HOME that have none, and many files."""
_MOST_COMPARED = 100
"""Users, and items of each."""


@router.get("/attributes", responses=problems(422, 503, 504))
async def attributes(
    components: ComponentsDep,
    trace: TraceDep,
    filter: FilterDep,
    values: Annotated[int, Query(ge=0, le=200, description="how many of the most frequent values of each")] = 20,
) -> AttributesAnswer:
    """The attributes of the items, with types and frequent values: what a filter can use."""
    summary = await components.recommender.inspect(summarize, filter, trace=trace)
    return AttributesAnswer(
        items=summary.items, read=summary.read, attributes=[_attribute(one, values) for one in summary.attributes]
    )


@router.get("/map", responses=problems(422, 503, 504))
async def catalogue_map(
    components: ComponentsDep,
    trace: TraceDep,
    attribute: Annotated[str | None, Query(description="whose values come with the points")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_POINTS)] = MOST_POINTS,
    item: Annotated[str | None, Query(description="an item that is among the points, however many there are")] = None,
) -> MapAnswer:
    """The catalogue in two dimensions: the first two principal components of the items' vectors."""
    asked = None if item is None else normalize_id(item)
    made = await components.recommender.inspect(project, attribute, limit, asked, trace=trace)
    x, y = ([round(float(value), 4) for value in made.places[:, axis]] for axis in (0, 1))
    return MapAnswer(items=made.items, explained=list(made.explained), ids=made.item_ids, x=x, y=y, values=made.values)


@router.get("/users", responses=problems(422, 503), response_model_exclude_none=True)
async def users(
    components: ComponentsDep,
    trace: TraceDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    events: Annotated[int, Query(ge=1, le=100, description="how many of each user's newest events")] = 5,
    prefix: Annotated[str, Query(max_length=256, description="what the ids begin with; empty: any")] = "",
) -> UsersAnswer:
    """A random sample of the users with stored events, or users whose ids begin with a prefix."""
    wanted = components.histories, normalize_id(prefix), limit, events
    found = await components.recommender.read(some_users, *wanted, trace=trace)
    return UsersAnswer(users=[_user(user_id, its_events) for user_id, its_events in found])


@router.get("/snapshots", responses=problems(503))
async def snapshots(components: ComponentsDep, trace: TraceDep) -> SnapshotsAnswer:
    """The snapshots in SEQREC_HOME of the process that answers, and which one is published."""
    publications = await components.recommender.read(_published, components.catalogue, trace=trace)
    placements = named_by(await components.recommender.read(components.catalogue.placements, trace=trace))
    found = await asyncio.to_thread(_snapshots, components.settings.home, publications)
    state, sides = components.follower.state, components.sides.statuses()
    served = None if state is None else state.snapshot.id
    updates = {
        one.id: {"placements": placements.get(one.id, []), **_loaded(sides.get(one.id), one.id == served)}
        for one in found
    }
    return SnapshotsAnswer(snapshots=[one.model_copy(update=updates[one.id]) for one in found])


@router.post("/snapshots/{snapshot_id}/publish", responses=problems(404, 413, 415, 422, 429, 503, 504))
async def publish_snapshot(
    snapshot_id: str, components: ComponentsDep, trace: TraceDep, audit: AuditDep
) -> PublishedAnswer:
    """Serve a snapshot of this home from now on; an earlier one to roll back. Every worker and host follows."""
    home, catalogue = components.settings.home, components.catalogue
    if snapshot_id not in await asyncio.to_thread(SnapshotStore(home).list):
        raise SnapshotNotFound(snapshot_id)
    seq = await components.recommender.read(publish, home, catalogue, snapshot_id, trace=trace)
    audit["snapshot"] = snapshot_id
    return PublishedAnswer(snapshot=snapshot_id, seq=seq)


@router.get("/snapshots/{snapshot_id}/changes", responses=problems(404, 422, 429, 503, 504))
async def snapshot_changes(
    snapshot_id: str,
    components: ComponentsDep,
    since: Annotated[str, Query(description="id of the other snapshot, the one before")],
    users: Annotated[int, Query(ge=1, le=_MOST_COMPARED, description="for how many users, drawn at random")] = 10,
    k: Annotated[int, Query(ge=1, le=_MOST_COMPARED)] = 10,
) -> ChangesAnswer:
    """What two snapshots recommend to the same users: how the models differ. It takes seconds; one at a time."""
    found = await asyncio.to_thread(SnapshotStore(components.settings.home).list)
    for one in (since, snapshot_id):
        if one not in found:
            raise SnapshotNotFound(one)
    return ChangesAnswer(**await compare_snapshots(components.settings, since, snapshot_id, users, k))


@router.get("/runs", responses=problems(503), response_model_exclude_none=True)
async def runs(components: ComponentsDep) -> RunsAnswer:
    """The newest training runs whose directories are in SEQREC_HOME, with their curves."""
    return RunsAnswer(runs=await asyncio.to_thread(_runs, components.settings.home))


@router.get("/recall", responses=problems(422, 429, 503, 504))
async def recall(components: ComponentsDep, trace: TraceDep, filter: FilterDep) -> RecallAnswer:
    """Recall@10 of the served search against exact search, among the items that pass the filter.

    It costs up to 100 exact searches. Of a hybrid model it is that of the dense vectors.
    """
    found = await components.recommender.inspect(served_recall, filter, trace=trace)
    state = components.follower.state
    assert state is not None  # else `inspect` had raised NotReady
    return RecallAnswer(
        snapshot=state.snapshot.id,
        index=state.snapshot.manifest.index,
        items=found.items,
        passing=found.passing,
        queries=found.queries,
        recall=found.recall if found.queries else None,
    )


@router.get("/evaluation", responses=problems(503))
async def evaluation(components: ComponentsDep) -> EvaluationAnswer:
    """The figures of the last evaluation that was written to SEQREC_HOME."""
    return EvaluationAnswer(markdown=await asyncio.to_thread(_text_of, components.settings.home / "evaluation.md"))


def _runs(home: Path) -> list[RunView]:
    """Of folders up to three levels below the home: `run`, `runs/NAME`, `retrain/TIME/run`."""
    tops = (path for path in home.glob("*/") if path.name not in _NO_RUNS)
    found = [path.parent for top in tops for pattern in ("", "*/", "*/*/") for path in top.glob(f"{pattern}run.json")]
    newest = sorted(found, key=_updated, reverse=True)[:_MOST_RUNS]
    return [_run(home, path) for path in newest if read_metadata(path) is not None]


def _updated(run: Path) -> float:
    try:
        return (run / "metrics.jsonl").stat().st_mtime
    except OSError:
        return 0.0


def _run(home: Path, path: Path) -> RunView:
    metadata = read_metadata(path) or {}
    view = RunView(
        path=path.relative_to(home).as_posix(),
        state=run_state(path, metadata),
        updated=_updated(path) or None,
        problem=without_directories(str(metadata["error"]), home) if "error" in metadata else None,
    )
    try:
        config = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
        curves = [
            CurveView(stage=one.stage, begins=one.begins, ends=one.ends, loss=_finite(one.loss), ndcg=_finite(one.ndcg))
            for one in read_curves(path / "metrics.jsonl")
        ]
        seconds: dict[str, float] = {}
        for entry in read_metrics(path / "metrics.jsonl"):
            seconds[entry.get("stage", "")] = entry["seconds"]
        known = {"curves": curves, "seconds": sum(seconds.values()), "checkpoint": metadata.get("checkpoint_digest")}
        return view.model_copy(update={**known, "model": config["model"]["name"]})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return view.model_copy(update={"problem": f"its files cannot be read: {error!r}"})


def _finite(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    return [point for point in points if math.isfinite(point[1])]


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


def _loaded(side: SideStatus | None, served: bool) -> dict[str, object]:
    if served or side is None:
        return {"answers": served}
    return {
        "answers": side.trouble is None,
        "memory": side.shared + side.own,
        **({} if side.trouble is None else {"problem": side.trouble}),
    }


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
