"""Snapshots that placements name: they are served next to the published one, so they are checked and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping

from index.catalogue.base import Placement


def named_in(rules: str) -> dict[str, str]:
    """Ids of snapshots in the rules of a placement, by the field that names them: variants, and the shadow."""
    if '"snapshot"' not in rules:
        return {}
    placement = json.loads(rules)
    variants = (placement.get("experiment") or {}).get("variants", ())
    found = {f"experiment.variants[{n}].snapshot": one.get("snapshot") for n, one in enumerate(variants)}
    found["shadow.snapshot"] = (placement.get("shadow") or {}).get("snapshot")
    return {field: snapshot_id for field, snapshot_id in found.items() if snapshot_id}


def named_by(placements: Mapping[str, Placement]) -> dict[str, list[str]]:
    """Names of the placements that name a snapshot, by its id."""
    found: dict[str, list[str]] = {}
    for name, stored in placements.items():
        for snapshot_id in dict.fromkeys(named_in(stored.rules).values()):
            found.setdefault(snapshot_id, []).append(name)
    return found
