"""Filters, exclusions and candidates against brute force, on every kind of index; and what they answer over HTTP."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from index.catalogue.base import CatalogueItem, Change
from index.snapshot.attribute_columns import ColumnWriter, StoredColumns
from index.vectors import approximate
from index.vectors.approximate import ApproximateIndex
from index.vectors.base import VectorIndex, Vectors
from index.vectors.flat import FlatIndex
from seqrec.data.items import AttributeValue, Item, make_item
from seqrec.encoder import load_model
from seqrec.errors import DeadlineExceeded, InputError
from seqrec.metric import Metric, ranked
from service.live import columns, filters
from service.live.columns import Columns
from service.live.filter_language import parse_filter
from service.live.search import SearchSpec, search
from service.live.state import LiveState, Towers, View
from tests.service.live.test_state import InMemorySnapshot

N = 60


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def near(value: Any, circle: Mapping[str, float]) -> bool:
    """By the spherical law of cosines, where the implementation uses the haversine formula."""
    try:
        lat, lon = (float(part) for part in value.split(","))
    except (AttributeError, ValueError):
        return False
    at, to, between = math.radians(lat), math.radians(circle["lat"]), math.radians(lon - circle["lon"])
    cosine = math.sin(at) * math.sin(to) + math.cos(at) * math.cos(to) * math.cos(between)
    return abs(lat) <= 90 and abs(lon) <= 180 and 6371.0088 * math.acos(max(-1, min(1, cosine))) <= circle["km"]


def meets(attributes: Mapping[str, AttributeValue], condition: Mapping[str, Any]) -> bool:
    """The language of filters once more, item by item."""
    for name, wanted in condition.items():
        if name in ("and", "or", "not"):
            parts = [meets(attributes, one) for one in (wanted if name != "not" else [wanted])]
            if not {"and": all(parts), "or": any(parts), "not": not parts[0]}[name]:
                return False
            continue
        value = attributes.get(name)
        values = [] if value is None else list(value) if isinstance(value, tuple) else [value]
        for word, operand in wanted.items() if isinstance(wanted, dict) else [("any", wanted)]:
            operands = operand if isinstance(operand, list) else [operand]
            if word == "exists":
                if bool(values) != operand:
                    return False
                continue
            if word == "near":
                if not any(near(one, operand) for one in values):
                    return False
                continue
            if isinstance(operand, str) and word in COMPARE:
                moments = [moment(one) for one in values if isinstance(one, str)]
                if not any(one is not None and COMPARE[word](one, moment(operand)) for one in moments):
                    return False
                continue
            number = values[0] if len(values) == 1 and isinstance(value, int | float) else None
            met = {
                "any": any(one in values for one in operands),
                "all": all(one in values for one in operands),
                "not": not any(one in values for one in operands),
                "gt": number is not None and number > operands[0] if word == "gt" else True,
                "gte": number is not None and number >= operands[0] if word == "gte" else True,
                "lt": number is not None and number < operands[0] if word == "lt" else True,
                "lte": number is not None and number <= operands[0] if word == "lte" else True,
            }
            if not met[word]:
                return False
    return True


BRANDS, TAGS, PRICES = ["Acme", "Lumen", "🫖", "3"], ["gift", "kitchen", "new"], [1, 2, 3, 3.5, 10]
DATES = ["2026-01-31", "2026-01-31T08:00:00+02:00", "2026-01-31T07:00:00Z", "2025-12-01", "soon"]
PLACES = ["52.52,13.40", "48.14, 11.58", "52.40,13.07", "-33.87,151.21", "99,7", "here"]
attributes = st.fixed_dictionaries(
    {"title": st.lists(st.sampled_from(["oak", "pine", "desk", "lamp"]), min_size=1, max_size=3).map(" ".join)},
    optional={
        "brand": st.sampled_from(BRANDS),
        "price": st.sampled_from([*PRICES, "dear"]),
        "tags": st.lists(st.sampled_from(TAGS), max_size=3, unique=True),
        "released": st.sampled_from(DATES),
        "place": st.sampled_from(PLACES),
    },
)
number = st.sampled_from(PRICES)
value = st.sampled_from([*BRANDS, *TAGS, *PRICES, "nobody"])
operators = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), number, max_size=2).flatmap(
    lambda ranges: st.dictionaries(
        st.sampled_from(["any", "all", "not"]), st.one_of(value, st.lists(value, max_size=3)), max_size=2
    ).map(lambda sets: ranges | sets or {"gte": 0})
)
circles = st.sampled_from(
    [{"lat": 52.5, "lon": 13.4, "km": 30}, {"lat": 50, "lon": 12, "km": 400}, {"lat": 0, "lon": 0, "km": 20_000}]
)
flat_conditions = st.dictionaries(
    st.sampled_from(["brand", "price", "tags", "title", "absent"]),
    st.one_of(value, st.lists(value, max_size=3), operators, st.booleans().map(lambda there: {"exists": there})),
    max_size=3,
).flatmap(
    lambda drawn: st.fixed_dictionaries(
        {name: st.just(one) for name, one in drawn.items()},
        optional={
            "released": st.dictionaries(st.sampled_from(sorted(COMPARE)), st.sampled_from(DATES[:4]), min_size=1),
            "place": circles.map(lambda circle: {"near": circle}),
        },
    )
)
conditions = st.one_of(
    flat_conditions,
    st.recursive(
        flat_conditions,
        lambda inner: st.one_of(
            st.fixed_dictionaries(
                {},
                optional={
                    "and": st.lists(inner, min_size=1, max_size=2),
                    "or": st.lists(inner, min_size=1, max_size=2),
                    "not": inner,
                    "brand": value,
                },
            )
        ),
        max_leaves=4,
    ),
)


@pytest.fixture(scope="module")
def towers(bag_of_words_checkpoint: Path) -> Towers:
    return Towers(load_model(bag_of_words_checkpoint, device="cpu"))


def made(factory: str, effort: str) -> Callable[[Vectors], VectorIndex]:
    def make(vectors: Vectors) -> VectorIndex:
        index = approximate.new_index(factory, vectors.shape[1], Metric.COSINE)
        index.train(vectors)
        index.add(vectors)
        found = ApproximateIndex(index, vectors, Metric.COSINE)
        found.set_search_params(effort)
        return found

    return make


KINDS: dict[str, Callable[[Vectors], VectorIndex]] = {
    "flat": lambda vectors: FlatIndex(vectors, Metric.COSINE),
    "ivf": made("IVF4,Flat", "nprobe=1"),
    "ivf-codes": made("IVF4,SQ8", "nprobe=1"),
    "hnsw": made("HNSW8", "efSearch=8"),
}


def snapshot_items() -> list[Item]:
    rng = np.random.default_rng(0)
    items = []
    for row in range(N):
        drawn: dict[str, Any] = {"title": " ".join(rng.choice(["oak", "pine", "desk", "lamp"], 2)) + f" {row}"}
        if rng.random() < 0.8:
            drawn["brand"] = str(rng.choice(BRANDS))
        if rng.random() < 0.8:
            drawn["price"] = PRICES[int(rng.integers(len(PRICES)))]
        if rng.random() < 0.5:
            drawn["released"] = str(rng.choice(DATES))
            drawn["place"] = str(rng.choice(PLACES))
        if rng.random() < 0.8:
            drawn["tags"] = [str(tag) for tag in TAGS if rng.random() < 0.5]
        items.append(make_item(f"i{row:02}", drawn, available=bool(rng.random() < 0.9)))
    return items


def state_of(towers: Towers, kind: str, columns: StoredColumns | None = None) -> LiveState:
    snapshot = InMemorySnapshot(snapshot_items(), towers, seq=0, popularity=np.arange(N, dtype=float).tolist())
    snapshot.columns = columns
    snapshot.index = KINDS[kind](snapshot.vectors)  # type: ignore[assignment]
    return LiveState(snapshot, towers)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_filtered_is_exact_on_every_kind(towers: Towers, kind: str, data: st.DataObject) -> None:
    """All that meets the filter, is shown and not excluded, best first; also while items change."""
    check_filtered(towers, state_of(towers, kind), kind == "flat", data)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_filtered_by_stored_columns_is_exact(
    towers: Towers, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder, writer = tmp_path_factory.mktemp("columns"), ColumnWriter()
    for item in sorted(snapshot_items(), key=lambda item: item.item_id):
        writer.append(item.attributes)
    writer.write(folder)
    check_filtered(towers, state_of(towers, "flat", StoredColumns(folder, N)), True, data)


def check_filtered(towers: Towers, state: LiveState, exact: bool, data: st.DataObject) -> None:
    """`exact`: also without a filter."""
    held = {item.item_id: item for item in snapshot_items()}
    ids = st.sampled_from([*sorted(held), "new-1", "new-2"])
    changes: list[Change] = []
    for item_id in data.draw(st.lists(ids, max_size=6), label="changed"):
        if data.draw(st.booleans(), label="deleted"):
            held.pop(item_id, None)
            changes.append(Change(len(changes) + 1, "delete", item_id))
        else:
            item = make_item(item_id, data.draw(attributes), data.draw(st.booleans()))
            held[item_id] = item
            changes.append(Change(len(changes) + 1, "put", item_id, CatalogueItem(item)))
    state.apply(changes, len(changes))
    view = state.view
    asked = [data.draw(conditions, label="filter") for _ in range(2)]
    queries = towers.encoder.encode_items([{"title": "oak desk 3"}, {"title": "lamp"}])
    excluded = set(data.draw(st.lists(ids, max_size=5, unique=True), label="excluded"))
    candidates = data.draw(st.none() | st.lists(ids, max_size=30, unique=True), label="candidates")
    k = data.draw(st.sampled_from([1, 3, 10, 100]), label="k")

    def positions(item_ids: Any) -> list[int]:
        return sorted(p for p in map(view.position_of, item_ids) if p is not None)

    wanted = [
        SearchSpec(
            k,
            frozenset(positions(excluded)),
            None if candidates is None else positions(candidates),
            view.passed(parse_filter(one, "filter", 100)) if one else None,
        )
        for one in asked
    ]
    for one, query, hits in zip(asked, queries, search(view, queries, wanted), strict=True):
        among = [
            item
            for item_id, item in held.items()
            if item.available
            and item_id not in excluded
            and (candidates is None or item_id in candidates)
            and meets(item.attributes, one)
        ]
        found = [view.item_id(hit.position) for hit in hits]
        assert len(found) == min(k, len(among))
        if one or candidates is not None or exact:
            scores = towers.encoder.encode_items(among) @ query if among else []
            best = [among[row].item_id for row in ranked([item.item_id for item in among], scores)[:k]]
            assert found == best
        else:  # what an approximate index finds: not all of the best, and nothing that it may not
            assert set(found) <= {item.item_id for item in among}


def test_a_view_keeps_its_answer_while_items_change(towers: Towers) -> None:
    state = state_of(towers, "flat")
    wanted = parse_filter({"brand": "Acme"}, "filter", 10)

    def passed(view: View) -> list[str]:
        mask = view.passed(wanted)
        return [view.item_id(p) for p in range(N + view.length) if p in mask and view.is_shown(p)]

    before = state.view
    first = passed(before)
    item = make_item("new", {"title": "oak", "brand": "Acme"})
    state.apply([Change(1, "put", "new", CatalogueItem(item))], 1)
    assert passed(state.view) == [*first, "new"]
    assert passed(before) == first
    many = [Change(2 + i, "put", f"n{i}", CatalogueItem(make_item(f"n{i}", {"title": "x"}))) for i in range(600)]
    state.apply(many, 700)  # the delta grows
    assert passed(state.view) == [*first, "new"]
    assert passed(before) == first


def test_a_column_is_read_once_and_masks_are_shared(towers: Towers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "MOST_MASKS", 2)
    state = state_of(towers, "flat")
    read: list[int] = []
    item = state.snapshot.item
    monkeypatch.setattr(state.snapshot, "item", lambda row: read.append(row) or item(row))
    acme, lumen = (parse_filter({"brand": brand}, "filter", 10) for brand in ("Acme", "Lumen"))
    first = state.view.passed(acme).snapshot
    assert first.any()
    assert len(read) == N
    state.view.passed(lumen)
    assert state.view.passed(parse_filter({"brand": "Acme"}, "filter", 10)).snapshot is first
    state.view.passed(parse_filter({"brand": "3"}, "filter", 10))
    state.view.passed(lumen)
    assert len(read) == N
    state.view.passed(parse_filter({"brand": "Acme", "price": 3}, "filter", 10))
    assert len(read) == 2 * N  # one more column
    # The next snapshot reads what was asked for here before anybody asks for it.
    after = state_of(towers, "flat")
    after.filters.warm_from(state.filters)
    monkeypatch.setattr(after.snapshot, "item", lambda row: pytest.fail("read again"))
    np.testing.assert_array_equal(after.view.passed(acme).snapshot, first)


def nested(depth: int) -> dict[str, Any]:
    return {"not": nested(depth - 1)} if depth else {"a": 1}


def test_a_relative_date_is_as_of_now(towers: Towers) -> None:
    state = state_of(towers, "flat")
    now = datetime.now(UTC)
    dates = {"new": now - timedelta(days=2), "old": now - timedelta(days=40), "coming": now + timedelta(days=3)}
    changes = [
        Change(seq, "put", name, CatalogueItem(make_item(name, {"title": "oak", "released": date.isoformat()})))
        for seq, (name, date) in enumerate(dates.items(), 1)
    ]
    state.apply(changes, len(changes))
    for bound, expected in (("now-30d", {"new", "coming"}), ("now", {"coming"}), ("now-8w", {"new", "old", "coming"})):
        mask = state.view.passed(parse_filter({"released": {"gte": bound}}, "filter", 10))
        found = {name for name in dates if (state.view.position_of(name) or 0) in mask}
        assert found == expected, bound


def test_columns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_COLUMNS", 3)
    held = Columns()
    row_of_all = dict.fromkeys("abcde", "x")
    for name in "abcde":
        held.evaluate([name], 1, lambda row: row_of_all, lambda of: None)
    assert held.names == ["c", "d", "e"]
    held.evaluate(
        list("abcde"), 1, lambda row: dict.fromkeys("abcde", "x"), lambda of: None
    )  # one filter may ask for more
    assert len(held.names) == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"price": {"above": 3}},
            "filter.price.above: unknown operator 'above'; the operators are any, all, not, gt",
        ),
        ({"price": {}}, "filter.price: give at least one of any, all, not"),
        ({"price": {"gt": "3"}}, 'filter.price.gt: a number, a date such as "2026-01-31", or "now-30d", not "3"'),
        ({"price": {"gt": [3]}}, r"filter.price.gt: a number, a date such as .*, not \[3\]"),
        ({"price": {"gt": True}}, "filter.price.gt: a number, a date such as .*, not true"),
        ({"price": {"gt": 10**400}}, "filter.price.gt: a number, a date such as .*, not 10"),
        ({"brand": None}, "filter.brand: a string, a number or a list of them, not null"),
        ({"brand": ["a", ["b"]]}, r'filter.brand: a string, a number or a list of them, not \["b"\]'),
        ({"brand": ["a"] * 11}, "filter: at most 10 values, not 11"),
        ({str(i): 1 for i in range(65)}, "filter: at most 64 attributes, not 65"),
        ({"or": [{"a": 1}, {"b": {"over": 3}}]}, r"filter.or\[1\].b.over: unknown operator 'over'"),
        ({"or": {"a": 1}}, r'filter.or: a list of 1 to 64 filters, not {"a": 1}'),
        ({"and": []}, r"filter.and: a list of 1 to 64 filters, not \[\]"),
        ({"not": [{"a": 1}]}, r'filter.not: a filter is an object, not \[{"a": 1}\]'),
        ({"or": [{"a": ["x"] * 6}, {"b": ["x"] * 5}]}, "filter: at most 10 values, not 11"),
        ({"a": {"exists": "yes"}}, 'filter.a.exists: true or false, not "yes"'),
        ({"a": {"near": {"lat": 95, "lon": 0, "km": 1}}}, "filter.a.near.lat: a number from -90 to 90, not 95"),
        ({"a": {"near": {"lat": 5, "lon": 0}}}, 'filter.a.near: {"lat": degrees, "lon": degrees, "km": distance}'),
        ({"a": {"same_as": "first"}}, 'filter.a.same_as: "last", the newest item of the history, not "first"'),
        ({"a": {"gte": "tomorrow"}}, "filter.a.gte: a number, a date such as"),
        (nested(10), "filters nest at most 8 deep"),
    ],
)
def test_what_is_no_filter_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_filter(wrong, "filter", 10)


def recommend(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.slow
def test_filters_over_http(client: TestClient) -> None:
    assert set(ids(recommend(client, history=["desk-1"], filter={"brand": "Lumen"}))) == {"lamp-1", "lamp-2"}
    assert ids(recommend(client, history=["desk-1"], filter={"brand": "Acme"})) == ["desk-2"]  # one was seen
    assert ids(recommend(client, history=["desk-1"], filter={"price": {"gte": 30.5, "lt": 60}})) == ["lamp-1"]
    assert ids(recommend(client, history=["desk-1"], filter={"tags": {"all": ["gift", "kitchen"]}})) == ["mug-1"]
    assert recommend(client, history=["desk-1"], filter={"brand": "nobody"})["items"] == []
    everything = ids(recommend(client, history=["desk-1"]))
    assert ids(recommend(client, history=["desk-1"], filter={})) == everything
    # Popularity answers by the same rules.
    popular = recommend(client, history=[], filter={"brand": {"not": ["Potter", "🫖"]}}, k=3)
    assert popular["source"] == "fallback:popular"
    assert ids(popular) == ["desk-1", "lamp-1", "desk-2"]
    # A new item is found at once, and a price that changes counts at once.
    posted = [{"item_id": "desk-3", "attributes": {"title": "Ash desk", "brand": "Acme", "price": 45}}]
    assert client.post("/items", json={"items": posted}).status_code == 200
    assert set(ids(recommend(client, history=["desk-1"], filter={"price": {"lt": 60}}))) == {"desk-3", "lamp-1"}
    posted[0]["attributes"]["price"] = 500  # type: ignore[index]
    assert client.post("/items", json={"items": posted}).status_code == 200
    assert ids(recommend(client, history=["desk-1"], filter={"price": {"lt": 60}})) == ["lamp-1"]


def test_a_wrong_filter_is_a_problem_that_names_the_condition(shared_client: TestClient) -> None:
    response = shared_client.post("/recommend", json={"history": [], "filter": {"price": {"above": 1}}})
    assert response.status_code == 422
    assert response.json()["field"] == "filter.price.above"
    batch = {"requests": [{"history": []}, {"history": [], "filter": {"brand": None}}]}
    response = shared_client.post("/recommend/batch", json=batch)
    assert (response.status_code, response.json()["field"]) == (422, "requests[1].filter.brand")


def test_explain_names_the_most_similar_of_the_history(shared_client: TestClient) -> None:
    history = ["desk-1", "mug-1", {"attributes": {"title": "brass"}}, "lamp-1", "desk-1", "pot/1"]
    answer = recommend(shared_client, history=history, explain=True)
    because = {item["item_id"]: item["because"] for item in answer["items"]}
    assert because["mug-2"][0]["item_id"] == "mug-1"
    assert because["desk-2"][0]["item_id"] == "desk-1"
    for reasons in because.values():
        assert len(reasons) == 3  # of four: each once
        assert len({reason["item_id"] for reason in reasons}) == 3
        similarities = [reason["similarity"] for reason in reasons]
        assert similarities == sorted(similarities, reverse=True)
        assert all(-1.001 <= similarity <= 1.001 for similarity in similarities)
    without = recommend(shared_client, history=history)
    assert ids(without) == ids(answer)
    assert not any("because" in item for item in without["items"])
    assert recommend(shared_client, history=[], explain=True)["items"][0]["because"] == []


def test_invented_names_make_no_columns_and_displace_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_COLUMNS", 2)
    held = Columns()
    reads: list[int] = []

    def attributes(row: int) -> dict[str, str]:
        reads.append(row)
        return {"a": "x"} if row < 5 else {"a": "x", "late": "y"}

    held.evaluate(["a"], 5, attributes, lambda of: None)
    for number in range(100):
        masks = held.evaluate(
            [f"invented-{number}"], 5, attributes, lambda of: [c.having(["x"], 5) for c in of.values()]
        )
        assert not masks[0].any()
    assert held.names == ["a"]
    assert held.unknown(["a", "b"]) == ["b"]
    assert len(reads) == 5
    late = held.evaluate(["late"], 8, attributes, lambda of: of["late"].having(["y"], 8))
    assert late.tolist() == [False] * 5 + [True] * 3


def test_a_scan_ends_when_nobody_waits_for_it_and_goes_on_where_it_was() -> None:
    held = Columns()
    reads: list[int] = []

    def attributes(row: int) -> dict[str, str]:
        reads.append(row)
        return {"a": str(row % 2)}

    def check() -> None:
        if len(reads) > 1000:
            raise DeadlineExceeded("enough")

    with pytest.raises(DeadlineExceeded):
        held.evaluate(["a"], 5000, attributes, lambda of: None, check)
    assert len(reads) < 1500
    mask = held.evaluate(["a"], 5000, attributes, lambda of: of["a"].having(["1"], 5000))
    assert mask.sum() == 2500
    assert len(reads) == 5000


@pytest.mark.parametrize("name", ["gt", "gte", "lt", "lte"])
def test_numbers_that_float64_rounds_compare_exactly(name: str) -> None:
    exact = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}[name]
    values = [2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, -(2**53) - 1, -(2**53), 3, 3.5, 2.0**53, 1e300]
    column = columns.Column()
    for value in values:
        column.append(value)
    for bound in [*values, 2**53 + 3, -(2**53) - 3, 2**63, 10**30]:
        expected = [exact(value, bound) for value in values]
        assert column.compare(name, bound, len(values)).tolist() == expected, bound


def test_a_misspelt_attribute_is_named_in_the_answer(shared_client: TestClient) -> None:
    for condition in ("Acme", {"not": ["Acme"]}):
        body = {"history": ["desk-1"], "filter": {"brnad": condition, "brand": {"not": ["x"]}}}
        assert shared_client.post("/recommend", json=body).json()["degraded"] == [
            "filter: no item has the attribute 'brnad'"
        ]
