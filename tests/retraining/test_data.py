from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from index.catalogue.base import CatalogueItem
from index.catalogue.event_types import EventType
from index.catalogue.histories import Event
from index.catalogue.open import open_catalogue, open_histories
from retraining.checks import EventCheck, Figure, items_problem
from retraining.data import export
from seqrec.data.items import make_item, read_interactions, read_items
from seqrec.errors import InputError


def test_what_makes_history_of_known_items_is_exported(tmp_path: Path) -> None:
    names = ["a", 'b,"c"']
    items = [make_item(name, {"title": f"Thing {name}"}, name == "a") for name in names]
    with closing(open_catalogue(tmp_path, create=True)) as catalogue, closing(open_histories(tmp_path)) as histories:
        with pytest.raises(InputError, match="nothing to train on"):
            export(catalogue, histories, tmp_path)
        catalogue.put([CatalogueItem(item) for item in items])
        histories.set_types(histories.types().with_types({"view": EventType("history", 0.25)}))
        histories.add([Event("u\u00e9", "a", 1.5, None, "view"), Event("u\u00e9", names[1], 2.0)])
        histories.add([Event("v", "gone", 1.0), Event("v", "a", 2.0, None, "shown")])
        found = export(catalogue, histories, tmp_path)
    assert (found.items, found.available, found.events, found.unknown, found.ignored) == (2, 1, 2, 1, 1)
    assert found.weights == {"view": 0.25}
    assert read_items(found.items_file) == items
    events = read_interactions(found.interactions_file, typed=True)
    assert (events.user_ids, events.item_ids, events.types) == (["u\u00e9"] * 2, names, ["view", ""])
    assert events.timestamps.tolist() == [1.5, 2.0]
    assert oct(found.interactions_file.stat().st_mode)[-3:] == "600"


@pytest.mark.parametrize(("gone", "problem"), [(0, False), (3, False), (4, True), (10, True)])
def test_items_that_were_served_may_go_up_to_a_share(gone: int, problem: bool) -> None:
    served = [f"i{n}" for n in range(10)]
    assert (items_problem(served, {*served[gone:], "new"}) is not None) == problem
    assert items_problem([], []) is None


@pytest.mark.parametrize(("newest", "high", "problem"), [(0.2, 0.22, False), (0.09, 0.12, False), (0.05, 0.09, True)])
def test_events_are_refused_if_surely_less_than_half_is_found(newest: float, high: float, problem: bool) -> None:
    check = EventCheck(Figure(newest, 0.0, high), Figure(0.2, 0.18, 0.22))
    assert (check.problem is not None) == problem
