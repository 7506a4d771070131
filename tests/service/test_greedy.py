"""A greedy key and a modest one: whatever the greedy one sends, all requests of the modest one succeed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.keys.base import make_key
from index.keys.open import open_keys

GREEDY_CONNECTIONS = 16
MODEST_REQUESTS = 20


@pytest.mark.slow
def test_a_modest_key_is_answered_while_a_greedy_one_floods_the_service(
    serve_process: Callable[..., Any], home: Path
) -> None:
    headers = {}
    with closing(open_keys(home)) as store:
        for name in ("greedy", "modest"):
            key, secret = make_key(name, ["recommend", "write"])
            store.add(key)
            headers[name] = {"x-api-key": secret}
    # Few places, so that the flood fills them on any machine.
    process = serve_process(SEQREC_MAX_OPEN_REQUESTS="8", SEQREC_QUEUE_TOKENS="4096", SEQREC_DEADLINE="30")
    words = " ".join(f"word{n}" for n in range(60))
    query = {"history": [{"attributes": {"title": words}}] * 10, "k": 5}
    items = {"items": [{"item_id": f"n{n}", "attributes": {"title": f"{words} {n}"}} for n in range(200)]}
    stop = threading.Event()
    got: Counter[int] = Counter()

    def flood(number: int) -> None:
        path, body = ("/items", items) if number % 3 == 0 else ("/recommend/batch", {"requests": [query] * 32})
        with httpx.Client(base_url=process.url, headers=headers["greedy"], timeout=120) as client:
            while not stop.is_set():
                got[client.post(path, json=body).status_code] += 1

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(GREEDY_CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        with httpx.Client(base_url=process.url, headers=headers["modest"], timeout=120) as client:
            statuses = [
                client.post("/recommend", json={"history": ["desk-1"], "k": 3}).status_code
                for _ in range(MODEST_REQUESTS)
            ]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses == [200] * MODEST_REQUESTS
    assert got[429] > 0, "the greedy key was refused what it took from others"
    assert set(got) <= {200, 429}
