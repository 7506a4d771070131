"""The endpoints for operation: reindex, health, readiness, metrics."""

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
from service.deadline import Deadline
from service.http.browse_schemas import JobsAnswer
from service.http.dependencies import AuditDep, ComponentsDep, StartupDep, TraceDep, problems
from service.http.operation_schemas import Health, JobView, KeyView, Readiness
from service.http.problems import without_directories
from service.keys.key_ring import KeyRing
from service.metrics import Metrics

_REINDEX_REST = 1.0
"""Seconds between two requests of a client to reindex, while other clients ask."""
CONSOLE = Path(__file__).parents[2] / "console"

_CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src {}; base-uri 'none'; "
    "form-action 'none'"
)

router = APIRouter(tags=["operation"])


@router.post("/reindex", status_code=202, responses=problems(413, 415, 429, 503, 504))
async def reindex(components: ComponentsDep, trace: TraceDep, audit: AuditDep) -> JobView:
    """Make a new snapshot of the catalogue in the background and serve it. If a job is running, returns that one."""
    deadline = Deadline(components.settings.write_deadline, trace.arrived)
    async with components.recommender.write_turns.turn(trace.client, deadline, _REINDEX_REST):
        job = await asyncio.to_thread(components.reindexer.start)
    audit["job"] = job.id
    return JobView(**asdict(job))


@router.get("/reindex")
async def reindex_jobs(components: ComponentsDep) -> JobsAnswer:
    """The newest reindex jobs of this host."""
    jobs = await asyncio.to_thread(components.reindexer.jobs)
    return JobsAnswer(jobs=[JobView(**asdict(job)) for job in jobs])


@router.get("/reindex/{job_id}", responses=problems(404, 422, 429, 503))
async def reindex_progress(job_id: str, components: ComponentsDep) -> JobView:
    """The progress of a reindex job."""
    return JobView(**asdict(await asyncio.to_thread(components.reindexer.job, job_id)))


@router.get("/healthz", responses={503: {"model": Health, "description": "Restart the process"}})
async def healthz(startup: StartupDep, response: Response) -> Health:
    """Whether the process is alive. Answers immediately, also while the snapshot is loaded."""
    try:
        batcher = startup.components.recommender.batcher
    except NotReady:
        return Health(status="alive")
    if batcher.alive:
        return Health(status="alive")
    response.status_code = 503
    return Health(status="dead", detail=f"a compute thread died: {batcher.failure!r}")


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready; `detail` gives the reason"}})
async def readyz(startup: StartupDep, request: Request, response: Response) -> Readiness:
    """Whether requests can be answered: a snapshot is loaded, warmed up and has caught up with the catalogue."""
    home: Path = request.app.state.home
    try:
        components = startup.components
    except NotReady as error:
        response.status_code = 503
        return Readiness(status="not ready", detail=without_directories(str(error), home), worker=os.getpid())
    try:
        view = await components.recommender.current_view()
    except (NotReady, CatalogueReplaced, DeadlineExceeded) as error:
        response.status_code = 503
        detail = without_directories(components.follower.trouble or str(error), home)
        head = components.follower.head
        return Readiness(status="not ready", detail=detail, head=head, worker=os.getpid())
    if not components.recommender.batcher.alive:
        response.status_code = 503
        return Readiness(status="not ready", detail="a compute thread died", worker=os.getpid())
    ring: KeyRing = request.app.state.keys
    degraded = [without_directories(reason, home) for reason in components.degraded]
    if ring.trouble is not None:
        degraded.append(without_directories(f"API keys are not followed: {ring.trouble}", home))
    return Readiness(
        status="ready",
        detail=degraded[0] if degraded else None,
        degraded=degraded,
        durability="weaker" if _durability_warnings(components) else "full",
        durability_warnings=_durability_warnings(components),
        catalogue=components.catalogue.catalogue_id,
        snapshot=view.snapshot.id,
        seq=view.seq,
        head=components.follower.head,
        worker=os.getpid(),
    )


@router.get("/key", response_model_exclude_none=True)
async def key(request: Request) -> KeyView:
    """The API key of this request: its scopes and when it expires. Any valid key may read its own."""
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
async def console(images: bool = False) -> FileResponse:
    """The console. It loads nothing from other hosts; with `images`, only the images that items name."""
    policy = _CONSOLE_POLICY.format("'self' https: http:" if images else "'self'")
    return FileResponse(CONSOLE / "index.html", headers={"content-security-policy": policy})


def _durability_warnings(components: Components) -> list[str]:
    return list(dict.fromkeys([*components.catalogue.durability_warnings, *components.histories.durability_warnings]))
