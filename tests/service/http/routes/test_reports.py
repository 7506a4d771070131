"""From an answer to its outcomes to a report, on both stores: ids, events, experiments, reports."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from index.catalogue.open import open_histories
from seqrec.errors import InputError
from service.reports.cli import report
from service.reports.receipts import make_receipt, read_receipt
from service.reports.retention import Retention
from tests.service.http.routes.test_placements import put
from tests.service.http.routes.test_popular import empty_client  # noqa: F401
from tests.service.http.routes.test_recommend import ids, recommend

DAY = 86_400
pytestmark = pytest.mark.slow


def tell(client: TestClient, answer: dict[str, Any], item_id: str, type: str, user: str = "ann", **more: Any) -> None:
    response = post(client, answer["recommendation_id"], item_id, type, user, **more)
    assert response.status_code == 200, response.text


def post(client: TestClient, receipt: str, item_id: str, type: str | None, user: str = "ann", **more: Any) -> Any:
    event = {"user_id": user, "item_id": item_id, "type": type, "recommendation_id": receipt} | more
    return client.post("/events", json={"events": [event]})


def rows(client: TestClient, by: str = "placement", **query: Any) -> dict[tuple[str, str], tuple[int, int, int, float]]:
    response = client.get("/reports", params={"by": by, **query})
    assert response.status_code == 200, response.text
    return {
        (row["placement"], row["group"]): (row["impressions"], row["clicks"], row["purchases"], row["revenue"])
        for row in response.json()["rows"]
    }


def test_outcomes_of_every_endpoint(empty_client: TestClient) -> None:  # noqa: F811
    client = empty_client
    put(client, "home", k=3)
    answer = recommend(client, history=["desk-1"], placement="home")
    for item_id in ids(answer):
        tell(client, answer, item_id, "shown")
    tell(client, answer, ids(answer)[1], "clicked")
    tell(client, answer, ids(answer)[1], "purchase", value=12.5)
    plain = recommend(client, history=["desk-1"], k=2)
    tell(client, plain, ids(plain)[0], "shown")
    similar = client.post("/similar", json={"item_id": "desk-1", "k": 2}).json()
    tell(client, similar, ids(similar)[0], "clicked")
    popular = client.post("/popular", json={}).json()
    tell(client, popular, ids(popular)[0], "cart")
    assert rows(client) == {
        ("home", "home"): (3, 1, 1, 12.5),
        ("/recommend", "/recommend"): (1, 0, 0, 0),
        ("/similar", "/similar"): (1, 1, 0, 0),
        ("/popular", "/popular"): (1, 0, 0, 0),
    }
    assert rows(client, "position", placement="home") == {
        ("home", "1"): (1, 0, 0, 0),
        ("home", "2"): (1, 1, 1, 12.5),
        ("home", "3"): (1, 0, 0, 0),
    }
    assert rows(client, "model", placement="home") == {("home", answer["model"][:16]): (3, 1, 1, 12.5)}
    assert rows(client, "snapshot", placement="home") == {("home", answer["snapshot"]): (3, 1, 1, 12.5)}
    assert rows(client, "source", placement="/popular") == {("/popular", "popular"): (1, 0, 0, 0)}
    # When the answer was made nothing had events; the click has given its item one.
    assert rows(client, "cold", placement="home") == {("home", "1"): (3, 1, 1, 12.5)}
    again = recommend(client, history=["desk-1"], k=8, exclude_seen=False)
    tell(client, again, ids(answer)[1], "shown")
    assert rows(client, "cold", placement="/recommend")["/recommend", "0"] == (1, 0, 0, 0)
    assert client.delete("/users/ann").status_code == 200
    assert rows(client) == {}


def test_answers_of_a_batch_and_pages_have_ids_of_their_own(client: TestClient) -> None:
    requests = [{"history": ["desk-1"], "k": 2}, {"history": ["mug-1"], "k": 2}]
    answers = client.post("/recommend/batch", json={"requests": requests}).json()["answers"]
    assert len({answer["recommendation_id"] for answer in answers}) == 2
    page = recommend(client, history=["desk-1"], k=2, paginate=True)
    second = recommend(client, history=["desk-1"], k=2, cursor=page["next"])
    tell(client, second, ids(second)[0], "clicked")
    assert list(rows(client, "position")) == [("/recommend", "3")]


def test_fallbacks_pins_and_exploration_are_told_apart(client: TestClient) -> None:
    cold = recommend(client, history=["unknown"], k=2)
    tell(client, cold, ids(cold)[0], "clicked")
    ruled = recommend(
        client,
        history=["desk-1"],
        k=3,
        pin=[{"position": 1, "item_ids": ["mug-2"]}],
        explore={"share": 0.5, "below_events": 9},
    )
    marks = {item["item_id"]: [name for name in ("pinned", "explored") if name in item] for item in ruled["items"]}
    assert sorted(map(len, marks.values())) == [0, 1, 1]
    for item_id in ids(ruled):
        tell(client, ruled, item_id, "shown")
    assert set(rows(client, "source")) == {("/recommend", one) for one in ("popular", "pinned", "explored", "model")}


def test_what_is_refused(client: TestClient) -> None:
    answer = recommend(client, history=["desk-1"], k=2)
    receipt, first = answer["recommendation_id"], ids(answer)[0]
    forged = receipt[:30] + ("A" if receipt[30] != "A" else "B") + receipt[31:]
    for text in (forged, "nonsense", receipt + receipt, "é"):
        refused = post(client, text, first, "shown")
        assert refused.status_code == 422
        assert refused.json()["field"] == "events[0].recommendation_id"
        assert "not an id of this service" in refused.json()["detail"]
    other = post(client, receipt, "nothing", "shown")
    assert (other.status_code, other.json()["field"]) == (422, "events[0].recommendation_id")
    for type in ("view", None):
        refused = post(client, receipt, first, type)
        assert (refused.status_code, refused.json()["field"]) == (422, "events[0].type")
    assert rows(client) == {}


def test_old_ids_are_refused(make_client: Callable[..., TestClient], home: Path) -> None:
    client = make_client(attribution_days=2)
    answer = recommend(client, history=["desk-1"], k=2)
    store = open_histories(home)
    slot = read_receipt(store.secret, answer["recommendation_id"], 60, "f").slot
    old = make_receipt(store.secret, slot, 0, [], time.time() - 2.5 * DAY)
    store.close()
    refused = post(client, old, ids(answer)[0], "shown")
    assert refused.status_code == 422
    assert "2.5 days old" in refused.json()["detail"]


def test_variants_of_an_experiment(empty_client: TestClient) -> None:  # noqa: F811
    client = empty_client
    experiment = {
        "name": "order",
        "holdout": 0.2,
        "variants": [{"name": "plain"}, {"name": "pinned", "rules": {"pin": [{"position": 1, "item_ids": ["pot/1"]}]}}],
    }
    stored = put(client, "home", k=2, exclude_seen=False, experiment=experiment)
    assert stored["rules"]["experiment"]["variants"][1]["name"] == "pinned"
    client.post("/events", json={"events": [{"user_id": "someone", "item_id": "lamp-1"}]})
    answers = {}
    for n in range(60):
        answers[f"u{n}"] = recommend(client, history=["desk-1"], user_id=f"u{n}", placement="home")
    first = {user: ids(answer)[0] for user, answer in answers.items()}
    kinds = Counter(
        "holdout" if answer["source"] == "fallback:popular" else "pinned" if first[user] == "pot/1" else "plain"
        for user, answer in answers.items()
    )
    assert set(kinds) == {"holdout", "pinned", "plain"}
    assert Counter(answer["variant"] for answer in answers.values()) == kinds
    assert {answer["experiment"] for answer in answers.values()} == {"order"}
    assert all(ids(answer)[0] == "lamp-1" for answer in answers.values() if answer["source"] == "fallback:popular")
    for user, answer in answers.items():  # sticky, whichever way the user is named
        by_session = recommend(client, history=["desk-1"], session_id=user, placement="home")
        assert ids(by_session) == ids(answer)
    for user, answer in answers.items():
        tell(client, answer, first[user], "shown", user)
        tell(client, answer, first[user], "purchase", user, value=2.0)
    assert {key[1]: row[0] for key, row in rows(client, "variant").items()} == kinds
    outside = recommend(client, history=["desk-1"], placement="home")
    assert outside["source"] == "model"
    assert "variant" not in outside
    assert "experiment" not in outside
    tell(client, outside, ids(outside)[0], "shown")
    assert rows(client, "variant")["home", ""][0] == 1
    [found] = client.get("/reports").json()["experiments"]
    assert [one["variant"] for one in found["variants"]] == ["plain", "pinned", "holdout"]
    assert {one["variant"]: one["users"] for one in found["variants"]} == kinds
    assert all(one["revenue_per_user"]["value"] == 2.0 for one in found["variants"])
    assert all(one["conversion"]["lift"] is None for one in found["variants"])  # too few
    similar = client.post("/similar", json={"item_id": "desk-1", "placement": "home", "session_id": "u1"}).json()
    assert similar["recommendation_id"]


def test_the_holdout_of_similar_and_popular(client: TestClient) -> None:
    """All but one in 10^6 are in it. Its answers are what is popular, under the filters alone."""
    boost = [{"filter": {"brand": "Lumen"}, "add": 1e5}]
    experiment = {"name": "e", "holdout": 0.999999, "variants": [{"name": "a"}]}
    put(client, "home", k=2, boost=boost, min_score=1e6, experiment=experiment)
    popular = ids(client.post("/popular", json={"k": 2}).json())
    for body in ({"item_id": "lamp-1"}, {"attributes": {"title": "lamp"}}):
        answer = client.post("/similar", json={**body, "placement": "home", "session_id": "s"}).json()
        assert ids(answer) == popular
        assert answer["variant"] == "holdout"
        tell(client, answer, popular[0], "shown")
    assert set(rows(client, "variant")) == {("home", "holdout")}
    answer = client.post("/popular", json={"placement": "home", "session_id": "s"}).json()
    assert (ids(answer), answer["variant"]) == (popular, "holdout")


def test_sessions_are_named_as_users_are(client: TestClient) -> None:
    for session_id in ("\ud800", " s", "s" * 300, "a\nb"):
        body = json.dumps({"history": ["desk-1"], "session_id": session_id})
        refused = client.post("/recommend", content=body, headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["field"]) == (422, "session_id")


@pytest.mark.parametrize(
    ("experiment", "field"),
    [
        ({"name": "e", "variants": []}, "experiment.variants"),
        ({"name": "E", "variants": [{"name": "a"}]}, "experiment.name"),
        ({"name": "e", "variants": [{"name": "a"}, {"name": "a"}]}, "experiment"),
        ({"name": "e", "variants": [{"name": "holdout"}]}, "experiment"),
        ({"name": "e", "variants": [{"name": "a", "weight": 0}]}, "experiment"),
        ({"name": "e", "variants": [{"name": "a"}], "holdout": 1}, "experiment.holdout"),
        ({"name": "e", "variants": [{"name": "a", "rules": {"filter": {"a": {"gt": []}}}}]}, "experiment.variants[0]"),
        ({"name": "e", "variants": [{"name": "a", "rules": {"experiment": {}}}]}, "experiment.variants[0]"),
    ],
)
def test_experiments_that_cannot_be(shared_client: TestClient, experiment: dict[str, Any], field: str) -> None:
    response = shared_client.put("/placements/home", json={"experiment": experiment})
    assert response.status_code == 422
    assert response.json()["field"].startswith(field)


def test_the_metrics_count_outcomes(client: TestClient) -> None:
    answer = recommend(client, history=["desk-1"], k=2)
    tell(client, answer, ids(answer)[0], "clicked")
    text = client.get("/metrics").text
    assert 'seqrec_outcomes_total{placement="/recommend",type="clicked",variant=""} 1.0' in text


def test_the_command_shows_the_same(
    client: TestClient, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(home))
    report([])
    assert "no outcomes" in capsys.readouterr().out
    put(client, "home", k=2, experiment={"name": "e", "variants": [{"name": "b"}, {"name": "a"}]})
    for n in range(30):
        answer = recommend(client, history=["desk-1"], user_id=f"u{n}", placement="home")
        tell(client, answer, ids(answer)[0], "clicked" if n % 3 else "shown", f"u{n}")
    report(["--by", "variant", "--json"])
    expected = client.get("/reports", params={"by": "variant"}).json()
    assert expected.pop("shadows") == []  # counted by the service, not by the stores
    assert json.loads(capsys.readouterr().out) == expected
    report(["--by", "variant", "--placement", "home"])
    text = capsys.readouterr().out
    assert "a against b, click-through: not enough yet" in text
    assert "home" in text
    with pytest.raises(InputError, match="at least 1"):
        report(["--days", "0"])


def test_retention_forgets_old_answers(client: TestClient, home: Path) -> None:
    answer = recommend(client, history=["desk-1"], k=2)
    store = open_histories(home)
    slot = read_receipt(store.secret, answer["recommendation_id"], 60, "f").slot
    tell(client, answer, ids(answer)[0], "clicked")
    Retention(store, 1).run()
    assert slot.placement == "/recommend"
    assert list(rows(client).values()) == [(1, 1, 0, 0)]
    with pytest.MonkeyPatch.context() as later:
        later.setattr("service.reports.retention.time.time", lambda: time.time_ns() / 1e9 + DAY)
        Retention(store, 1).run()
    assert rows(client) == {}
    store.close()
