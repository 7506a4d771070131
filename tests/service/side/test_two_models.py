"""Two models side by side under load, while a third is published and one is rolled back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from index.catalogue.open import open_catalogue
from index.snapshot.publication import publish, published, rollback
from service.live.loader import Loader
from tests.service.side.models import answers_from, ask, facts, place, second_snapshot, split, until

pytestmark = pytest.mark.slow

THREADS = 4
HISTORY = ["desk-1", {"attributes": {"title": "Tea mug"}}]


def test_two_models_answer_while_a_third_is_published_and_rolled_back(
    home: Path, make_client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_snapshot, loaded = Loader.__call__, []

    def loading(self: Loader, snapshot_id: str, before: Any) -> Any:
        loaded.append((self, snapshot_id))
        return open_snapshot(self, snapshot_id, before)

    second, third = second_snapshot(home, 8), second_snapshot(home, 16)
    with closing(open_catalogue(home)) as catalogue:
        first = published(catalogue)
        assert first is not None
        monkeypatch.setattr(Loader, "__call__", loading)
        client = make_client()
        main, _ = loaded[0]
        alone = {}
        for snapshot in (second, third, first):  # each of them alone
            publish(home, catalogue, snapshot)
            until(lambda wanted=snapshot: client.get("/readyz").json()["snapshot"] == wanted)
            alone[snapshot] = facts(ask(client, history=HISTORY))
        assert len(set(map(str, alone.values()))) == 3

        place(client, "home", split(first, second))
        until(lambda: answers_from(client, second))
        done, answered = threading.Event(), []

        def load(number: int) -> None:
            while not done.is_set():
                for unit in range(number, 40, THREADS):
                    question = {"history": HISTORY, "session_id": f"u{unit}", "placement": "home", "k": 20}
                    answered.append((unit, client.post("/recommend", json=question)))
                answered.append((-1, client.post("/recommend", json={"history": HISTORY, "k": 20})))

        with ThreadPoolExecutor(THREADS) as pool:
            threads = [pool.submit(load, number) for number in range(THREADS)]
            try:
                served = []
                for change in (
                    lambda: publish(home, catalogue, third),
                    lambda: rollback(home, catalogue),
                    lambda: publish(home, catalogue, second),  # the variant's model goes live
                    lambda: rollback(home, catalogue),
                ):
                    change()
                    wanted = published(catalogue)
                    until(lambda wanted=wanted: client.get("/readyz").json()["snapshot"] == wanted)
                    before = len(answered)
                    until(lambda before=before: len(answered) > before + 100)
                    served.append(wanted)
            finally:
                done.set()
            for thread in threads:
                thread.result()
    assert served == [third, first, second, first]
    beside = [snapshot_id for loader, snapshot_id in loaded if loader is not main]
    assert beside == [second], "what was published goes on as it is, with no gap"
    failed = [response.text for _, response in answered if response.status_code != 200]
    assert failed == []
    by_unit: dict[int, set[str]] = {}
    for unit, response in answered:
        answer: dict[str, Any] = response.json()
        assert facts(answer) == alone[answer["snapshot"]], "an answer of two states"
        assert answer["degraded"] == []
        by_unit.setdefault(unit, set()).add(answer["snapshot"])
    assert by_unit.pop(-1) == {first, second, third}
    assert set(map(len, by_unit.values())) == {1}, "each user has one model, whatever is published"
    assert {snapshot for one in by_unit.values() for snapshot in one} == {first, second}
