"""The endpoints for who runs the service: reindex, health, readiness, metrics."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse

from index.keys.base import SCOPES, ApiKey
from seqrec.errors import CatalogueReplaced, DeadlineExceeded, NotReady
from service.components import Components
from service.http.dependencies import AuditDep, ComponentsDep, StartupDep, problems
from service.http.schemas import Health, JobView, KeyView, Readiness
from service.keys.key_ring import KeyRing
from service.metrics import Metrics

CONSOLE = Path(__file__).parents[2] / "console"

router = APIRouter(tags=["operation"])


@router.post("/reindex", status_code=202, responses=problems(503))
async def reindex(components: ComponentsDep, audit: AuditDep) -> JobView:
    """Make a new snapshot of the catalogue in the background and serve it. One at a time: a running one is answered."""
    job = await asyncio.to_thread(components.reindexer.start)
    audit["job"] = job.id
    return JobView(**asdict(job))


@router.get("/reindex/{job_id}", responses=problems(404, 422))
async def reindex_progress(job_id: str, components: ComponentsDep) -> JobView:
    """How far a reindex job is."""
    return JobView(**asdict(await asyncio.to_thread(components.reindexer.job, job_id)))


@router.get("/healthz", responses={503: {"model": Health, "description": "Restart the process"}})
async def healthz(startup: StartupDep, response: Response) -> Health:
    """Whether the process can ever answer; at once, also while it loads."""
    try:
        batcher = startup.components.recommender.batcher
    except NotReady:
        return Health(status="alive")
    if batcher.alive:
        return Health(status="alive")
    response.status_code = 503
    return Health(status="dead", detail=f"a compute thread died: {batcher.failure!r}")


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not yet; `detail` says why"}})
async def readyz(request: Request, startup: StartupDep, response: Response) -> Readiness:
    """Whether requests are answered: a snapshot is loaded, warmed and caught up, and the catalogue is the same."""
    try:
        components = startup.components
    except NotReady as error:
        response.status_code = 503
        return Readiness(status="not ready", detail=str(error), worker=os.getpid())
    try:
        view = await components.recommender.current_view()
    except (NotReady, CatalogueReplaced, DeadlineExceeded) as error:
        response.status_code = 503
        detail = components.follower.trouble or str(error)
        return Readiness(status="not ready", detail=detail, head=components.follower.head, worker=os.getpid())
    if not components.recommender.batcher.alive:
        response.status_code = 503
        return Readiness(status="not ready", detail="a compute thread died", worker=os.getpid())
    ring: KeyRing = request.app.state.keys
    degraded = [*components.degraded, *([] if ring.trouble is None else [f"API keys are not followed: {ring.trouble}"])]
    return Readiness(
        status="ready",
        detail=degraded[0] if degraded else None,
        degraded=degraded,
        promises="weaker" if _durability_warnings(components) else "full",
        durability_warnings=_durability_warnings(components),
        catalogue=components.catalogue.catalogue_id,
        snapshot=view.snapshot.id,
        seq=view.seq,
        head=components.follower.head,
        worker=os.getpid(),
    )


@router.get("/key", response_model_exclude_none=True)
async def key(request: Request) -> KeyView:
    """The API key of this request: its scopes and when it ends. Any valid key may ask, of itself only."""
    found: ApiKey | None = request.state.key
    if found is None:
        return KeyView(scopes=list(SCOPES))
    return KeyView(
        name=found.name, scopes=sorted(found.scopes), expires=found.expires, rate=found.rate, quota=found.quota
    )


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """The service's metrics in the text format of Prometheus; with several workers, of all of them."""
    counted: Metrics = request.app.state.metrics
    return Response(await asyncio.to_thread(counted.text), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def console() -> FileResponse:
    return FileResponse(CONSOLE / "index.html")


def _durability_warnings(components: Components) -> list[str]:
    return list(dict.fromkeys([*components.catalogue.durability_warnings, *components.histories.durability_warnings]))
