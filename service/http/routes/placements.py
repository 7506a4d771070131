"""The endpoints of placements: named rules for recommendations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from seqrec.errors import PlacementNotFound
from service.http.dependencies import WRITE, ComponentsDep, TraceDep, problems
from service.http.schemas import DeleteAnswer, Placements, StoredPlacement
from service.rules.body import PlacementBody, check_placement

router = APIRouter(tags=["placements"])
Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="small letters, digits, . _ -")]


@router.get("/placements", responses=problems(503, 504), response_model_exclude_unset=True)
async def list_placements(components: ComponentsDep, trace: TraceDep) -> Placements:
    """All placements."""
    stored = await components.recommender.read(components.catalogue.placements, trace=trace)
    return Placements(placements=[_view(name, placement.seq, placement.rules) for name, placement in stored.items()])


@router.get("/placements/{name}", responses=problems(404, 422, 503, 504), response_model_exclude_unset=True)
async def get_placement(name: Name, components: ComponentsDep, trace: TraceDep) -> StoredPlacement:
    """The rules of a placement."""
    stored = (await components.recommender.read(components.catalogue.placements, trace=trace)).get(name)
    if stored is None:
        raise PlacementNotFound(name)
    return _view(name, stored.seq, stored.rules)


@router.put("/placements/{name}", responses=WRITE, response_model_exclude_unset=True)
async def put_placement(name: Name, body: PlacementBody, components: ComponentsDep, trace: TraceDep) -> StoredPlacement:
    """Replace the rules of a placement. Every worker follows them in its next answer, other hosts within 250 ms."""
    check_placement(body, components.settings)  # raises InputError that names the field
    rules = body.model_dump_json(exclude_unset=True)
    return _view(name, await components.recommender.set_placement(name, rules, trace), rules)


@router.delete("/placements/{name}", responses=problems(404, 422, 503))
async def delete_placement(name: Name, components: ComponentsDep, trace: TraceDep) -> DeleteAnswer:
    """Delete a placement; requests that name it get 404 from then on."""
    return DeleteAnswer(seq=await components.recommender.set_placement(name, None, trace))


def _view(name: str, version: int, rules: str) -> StoredPlacement:
    return StoredPlacement(name=name, version=version, rules=PlacementBody.model_validate_json(rules))
