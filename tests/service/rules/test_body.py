"""Rules as placements store them."""

from __future__ import annotations

import json

import pytest

from seqrec.errors import InputError
from service.rules.body import placement_rules


def test_rules_with_a_field_of_a_later_version_are_refused_with_its_name() -> None:
    assert placement_rules(json.dumps({"k": 3})).values["k"] == 3
    with pytest.raises(InputError, match=r"cannot be read: surprise: .*A later version stored them: run the same"):
        placement_rules(json.dumps({"k": 3, "surprise": 0.1}))
