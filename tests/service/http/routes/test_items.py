"""Items in, found by the next request, changed, deleted, and found again after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from index.catalogue.base import Catalogue, CatalogueItem, PutResult
from index.catalogue.sqlite.catalogue import SqliteCatalogue
from seqrec.data.items import make_item
from seqrec.encoder import Encoder
from seqrec.errors import ItemChanged
from service.engine.posted_items import Patched, put_unless_changed

MakeClient = Callable[..., TestClient]


def put(client: TestClient, *items: dict[str, Any]) -> dict[str, Any]:
    response = client.post("/items", json={"items": list(items)})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def top(client: TestClient, title: str, **body: Any) -> str:
    response = client.post("/recommend", json={"history": [{"attributes": {"title": title}}], "k": 1} | body)
    assert response.status_code == 200, response.text
    found: str = response.json()["items"][0]["item_id"]
    return found


def test_many_items_are_prepared_and_written_on_one_thread(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy with posted items, several would hold up what computes; a few items do not wait behind many."""
    put_items, threads = SqliteCatalogue.put, []

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name.partition("_")[0])
        return put_items(*arguments)

    monkeypatch.setattr(SqliteCatalogue, "put", noted)
    many = [{"item_id": f"kite-{number}", "attributes": {"title": f"Paper kite {number}"}} for number in range(8)]
    put(client, *many)
    put(client, many[0])
    assert threads == ["bulk", "store"]


@pytest.mark.slow
def test_an_item_is_found_by_the_next_request(client: TestClient) -> None:
    seq = client.get("/readyz").json()["seq"]
    item = {"item_id": "kite", "attributes": {"title": "Paper kite", "price": 4}}
    assert put(client, item) == {"seq": seq + 1, "created": 1, "updated": 0, "searchable": True}
    answer = client.post("/recommend", json={"history": [{"attributes": {"title": "paper kite"}}], "k": 1}).json()
    assert answer["items"][0]["item_id"] == "kite"
    assert answer["seq"] == seq + 1
    assert client.get("/items/kite").json() == item | {"available": True, "seq": seq + 1, "searchable": True}


@pytest.mark.slow
def test_an_update_replaces_what_was_there(client: TestClient) -> None:
    assert top(client, "pine desk") == "desk-2"
    answer = put(
        client,
        {"item_id": "desk-2", "attributes": {"title": "Garden gnome"}},
        {"item_id": "new", "attributes": {"title": "Garden rake"}},
    )
    assert (answer["created"], answer["updated"]) == (1, 1)
    assert top(client, "garden gnome") == "desk-2"
    assert top(client, "pine desk") != "desk-2"
    again = client.post("/recommend", json={"history": ["desk-2"]}).json()
    assert again["items"][0]["item_id"] == "new"


@pytest.mark.slow
def test_a_deleted_item_is_gone_and_can_come_back(client: TestClient) -> None:
    assert client.delete("/items/desk-1").json()["seq"] == client.get("/readyz").json()["seq"]
    assert client.get("/items/desk-1").status_code == 404
    answer = client.post("/recommend", json={"history": ["desk-1", "desk-2"], "exclude_seen": False}).json()
    assert answer["unknown"] == ["desk-1"]
    assert "desk-1" not in [item["item_id"] for item in answer["items"]]
    assert client.delete("/items/desk-1").status_code == 404
    put(client, {"item_id": "desk-1", "attributes": {"title": "Oak desk"}})
    assert top(client, "oak desk") == "desk-1"


@pytest.mark.slow
def test_an_id_with_a_slash(client: TestClient) -> None:
    item_id = "a/b c?#/"
    put(client, {"item_id": item_id, "attributes": {"title": "Slash"}})
    path = f"/items/{quote(item_id, safe='')}"
    assert client.get(path).json()["item_id"] == item_id
    assert client.get("/items/pot%2F1").json()["item_id"] == "pot/1"
    assert client.get("/items/pot/1").json()["item_id"] == "pot/1"
    assert client.delete(path).status_code == 200
    assert client.get(path).status_code == 404


@pytest.mark.slow
def test_a_price_change_encodes_nothing_again(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = {"title": "Paper kite", "price": 4}
    put(client, {"item_id": "kite", "attributes": attributes})
    encoded: list[int] = []
    encode = Encoder.encode_item_tokens

    def counting(self: Encoder, items: Any, *arguments: Any) -> Any:
        encoded.append(len(items))
        return encode(self, items, *arguments)

    monkeypatch.setattr(Encoder, "encode_item_tokens", counting)
    put(client, {"item_id": "kite", "attributes": attributes, "available": False})
    assert encoded == []
    put(client, {"item_id": "kite", "attributes": {"title": "Paper lantern"}})
    assert encoded == [1]


@pytest.mark.slow
def test_a_patch_changes_what_it_names_and_encodes_only_new_texts(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, {"item_id": "kite/1", "attributes": {"title": "Paper kite", "price": 4, "colour": "red"}})
    encoded: list[int] = []
    encode = Encoder.encode_item_tokens

    def counting(self: Encoder, items: Any, *arguments: Any) -> Any:
        encoded.append(len(items))
        return encode(self, items, *arguments)

    monkeypatch.setattr(Encoder, "encode_item_tokens", counting)
    answer = client.patch("/items/kite%2F1", json={"attributes": {"price": 5.5, "stock": 2, "colour": None}})
    assert (answer.status_code, answer.json()["updated"], answer.json()["unchanged"]) == (200, 1, 0)
    stored = client.get("/items/kite%2F1").json()
    assert stored["attributes"] == {"title": "Paper kite", "price": 5.5, "stock": 2}
    assert stored["seq"] == answer.json()["seq"]
    again = client.patch("/items", json={"items": [{"item_id": "kite/1", "attributes": {"stock": 2}}]})
    assert again.json() == {"seq": answer.json()["seq"], "updated": 0, "unchanged": 1}
    encoded.clear()  # this model reads all attributes
    both = [{"item_id": "kite/1", "available": False}, {"item_id": "desk-1", "available": True}]
    assert client.patch("/items", json={"items": both}).json() | {"seq": 0} == {"seq": 0, "updated": 1, "unchanged": 1}
    assert client.get("/items/kite%2F1").json()["searchable"] is False
    assert client.get("/items/desk-1").json()["available"] is True
    assert encoded == []
    client.patch("/items/kite%2F1", json={"attributes": {"title": "Silk lantern"}, "available": True})
    assert encoded == [1]
    assert top(client, "silk lantern") == "kite/1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("items", "status", "field"),
    [
        ([{"item_id": "mug-1", "attributes": {"price": 1}}, {"item_id": "none", "attributes": {}}], 404, None),
        ([{"item_id": "mug-1", "attributes": {"price": {}}}], 422, "items[0].attributes.price"),
        ([{"item_id": "mug-1"}, {"item_id": "mug-1"}], 422, "items[1].item_id"),
        (
            [{"item_id": "mug-1", "attributes": {"title": None, "brand": None, "tags": None}}],
            422,
            "items[0].attributes",
        ),
        ([], 422, "items"),
    ],
)
def test_a_patch_that_is_refused_changes_nothing(
    client: TestClient, items: list[dict[str, Any]], status: int, field: str | None
) -> None:
    before = client.get("/readyz").json()["seq"]
    refused = client.patch("/items", json={"items": items})
    assert refused.status_code == status, refused.text
    assert refused.json().get("field") == field
    assert client.get("/readyz").json()["seq"] == before


@pytest.mark.slow
def test_patches_at_the_same_time_lose_nothing(client: TestClient) -> None:
    put(client, {"item_id": "kite", "attributes": {"title": "Paper kite"}})
    with ThreadPoolExecutor(8) as pool:
        patches = [{"attributes": {f"shelf-{n}": n}} for n in range(24)]
        answers = list(pool.map(lambda body: client.patch("/items/kite", json=body).status_code, patches))
    assert answers == [200] * 24
    assert len(client.get("/items/kite").json()["attributes"]) == 25


def test_a_patch_whose_item_others_keep_changing(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again until its deadline, and says then why nothing was written."""
    attempts = 0

    def changed_meanwhile(catalogue: Catalogue, patched: Patched) -> PutResult | ItemChanged:
        nonlocal attempts
        attempts += 1
        return put_unless_changed(catalogue, patched) if attempts == 40 else ItemChanged("kite")

    client = make_client(write_deadline=5.0)
    put(client, {"item_id": "kite", "attributes": {"title": "Paper kite"}})
    monkeypatch.setattr("service.engine.recommender.put_unless_changed", changed_meanwhile)
    assert client.patch("/items/kite", json={"attributes": {"shelf": 1}}).status_code == 200
    client = make_client(write_deadline=0.5)
    refused = client.patch("/items/kite", json={"attributes": {"shelf": 2}})
    assert refused.status_code == 503
    assert "item 'kite' was changed by another request at the same time" in refused.json()["detail"]
    assert client.get("/items/kite").json()["attributes"]["shelf"] == 1


@pytest.mark.slow
def test_what_another_process_writes_is_in_the_next_answer(client: TestClient, home: Path) -> None:
    other = SqliteCatalogue(home / "catalogue.sqlite3")
    for n in range(20):
        item = make_item(f"other-{n}", {"title": f"Umbrella {n}"})
        seq = other.put([CatalogueItem(item)]).seq
        answer = client.post(
            "/recommend", json={"history": [{"attributes": {"title": f"umbrella {n}"}}], "k": 1}
        ).json()
        assert answer["seq"] == seq
        assert answer["items"][0]["item_id"] == f"other-{n}"
        other.delete([item.item_id])
        assert client.get(f"/items/other-{n}").status_code == 404
    other.close()


@pytest.mark.slow
def test_a_thousand_items_at_once(client: TestClient) -> None:
    items = [{"item_id": f"n{n}", "attributes": {"title": f"Thing {n}", "brand": "Bulk"}} for n in range(1000)]
    assert put(client, *items)["created"] == 1000
    assert top(client, "thing 517 bulk") == "n517"


@pytest.mark.slow
def test_many_clients_at_once_each_find_their_own(client: TestClient) -> None:
    failures: list[str] = []

    def work(name: str) -> None:
        for n in range(10):
            put(client, {"item_id": f"{name}-{n}", "attributes": {"title": f"{name} gadget {n}"}})
            found = top(client, f"{name} gadget {n}")
            if found != f"{name}-{n}":
                failures.append(found)
            client.delete(f"/items/{name}-{n}")

    threads = [threading.Thread(target=work, args=(name,)) for name in ("ann", "ben", "cat", "dan")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.slow
def test_items_are_there_after_a_restart(make_client: MakeClient) -> None:
    first = make_client()
    put(first, {"item_id": "kite", "attributes": {"title": "Paper kite"}})
    first.delete("/items/mug-1")
    seq = first.get("/readyz").json()["seq"]
    second = make_client()
    assert second.get("/readyz").json()["seq"] == seq
    assert top(second, "paper kite") == "kite"
    assert second.get("/items/mug-1").status_code == 404


@pytest.mark.slow
def test_words_find_items(client: TestClient) -> None:
    put(client, {"item_id": "kite", "attributes": {"title": "Paper kite", "price": 4}})
    found = client.get("/items", params={"q": "paper ki", "limit": 5}).json()
    kite = {"item_id": "kite", "attributes": {"title": "Paper kite", "price": 4}, "available": True}
    assert found == {"items": [kite], "degraded": []}
    assert len(client.get("/items", params={"q": "tea", "limit": 2}).json()["items"]) == 2
    assert client.get("/items", params={"q": "no such words"}).json()["items"] == []
    put(client, {"item_id": "kite", "attributes": {"title": "Paper kite"}, "available": False})
    [hidden] = client.get("/items", params={"q": "paper kite"}).json()["items"]
    assert hidden["available"] is False
