"""The endpoint of reports: what became of recommendations."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from service.http.dependencies import ComponentsDep, TraceDep, problems
from service.http.event_schemas import ReportAnswer, ShadowView
from service.reports.report import By, Report, make_report

router = APIRouter(tags=["reports"])


@router.get("/reports", responses=problems(422, 429, 503, 504))
async def reports(
    components: ComponentsDep,
    trace: TraceDep,
    by: Annotated[By, Query(description="what divides the rows of each placement")] = "placement",
    days: Annotated[int, Query(ge=1, le=3650, description="answers of the last days, today included")] = 30,
    placement: Annotated[str | None, Query(max_length=100, description="of this one only")] = None,
) -> ReportAnswer:
    """Impressions, clicks, purchases and revenue of recommendations, and how variants and shadows compare."""

    def make() -> Report:
        return make_report(components.histories, components.catalogue.placements(), by, days, placement)

    made = asdict(await components.recommender.read(make, trace=trace))
    totals = await asyncio.to_thread(components.metrics.shadows)
    shadows = [ShadowView(**one._asdict()) for one in totals if placement in (None, one.placement)]
    return ReportAnswer(**made, shadows=shadows)
