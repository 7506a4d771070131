"""Snapshots that placements name are found in their rules."""

from __future__ import annotations

import json

from index.catalogue.base import Placement
from index.snapshot.named import named_by, named_in


def rules(*variants: str | None, shadow: str | None = None) -> str:
    experiment = {"name": "e", "variants": [{"name": f"v{n}", "snapshot": one} for n, one in enumerate(variants)]}
    return json.dumps({"experiment": experiment, **({"shadow": {"snapshot": shadow}} if shadow else {})})


def test_variants_and_the_shadow_are_found_by_their_fields() -> None:
    assert named_in(rules("s1", None, "s2", shadow="s3")) == {
        "experiment.variants[0].snapshot": "s1",
        "experiment.variants[2].snapshot": "s2",
        "shadow.snapshot": "s3",
    }
    assert named_in('{"k": 5}') == named_in('{"filter": {"snapshot": "s1"}, "experiment": null, "shadow": null}') == {}


def test_a_snapshot_has_the_names_of_all_placements() -> None:
    placements = {
        "home": Placement(1, rules("s1", "s1", shadow="s2")),
        "cart": Placement(2, rules("s1")),
        "email": Placement(3, "{}"),
    }
    assert named_by(placements) == {"s1": ["home", "cart"], "s2": ["home"]}
