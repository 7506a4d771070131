"""Following the log: what a worker does that slept, whose log cannot be read, or turns out to be another one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from index.build.reindex import Request, make_snapshot
from index.catalogue.base import Catalogue, CatalogueItem
from index.catalogue.open import open_catalogue
from index.snapshot.publication import rollback
from seqrec.data.items import make_item
from seqrec.encoder import Encoder
from seqrec.errors import CatalogueError, CatalogueReplaced, NotReady, SnapshotError
from service.live.follower import Follower
from service.live.loader import Loader
from service.settings import Settings


class Steered:
    """A catalogue whose head can be held back or replaced by an error, as where its store is away."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.awake = threading.Event()
        self.awake.set()
        self.asleep = threading.Event()
        self.error: CatalogueError | None = None
        self.back_by = 0

    def head(self) -> int:
        if not self.awake.is_set():
            self.asleep.set()
            assert self.awake.wait(20)
        if self.error is not None:
            raise self.error
        return self._catalogue.head() - self.back_by

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalogue, name)


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def catalogue(home: Path) -> Iterator[Catalogue]:
    catalogue = open_catalogue(home)
    yield catalogue
    catalogue.close()


@pytest.fixture
def steered(catalogue: Catalogue) -> Steered:
    return Steered(catalogue)


@contextmanager
def following(home: Path, steered: Any, **options: Any) -> Iterator[Follower]:
    follower = Follower(steered, Loader(Settings(home=home), steered), 0.01, **options)
    follower.start()
    try:
        until(lambda: follower.state is not None or follower.trouble != "the snapshot is being loaded")
        yield follower
    finally:
        steered.awake.set()
        follower.close()


def put(catalogue: Catalogue, *item_ids: str) -> int:
    return catalogue.put([CatalogueItem(make_item(item_id, {"title": item_id})) for item_id in item_ids]).seq


@pytest.mark.slow
def test_a_worker_that_slept_while_its_log_was_compacted_loads_the_newer_snapshot(
    home: Path, catalogue: Catalogue, steered: Steered
) -> None:
    with following(home, steered) as follower:
        first = follower.view()
        steered.awake.clear()
        assert steered.asleep.wait(10)
        for n in range(3):
            put(catalogue, "often", f"new-{n}")
            make_snapshot(home, Request(keep=1, force=True))
        catalogue.compact(catalogue.head())
        head = put(catalogue, "late")
        steered.awake.set()
        until(lambda: follower.view().seq >= head)
        view = follower.view()
        assert view.snapshot.id != first.snapshot.id
        for item_id in ("often", "new-0", "new-2", "late"):
            position = view.position_of(item_id)
            assert position is not None
            assert view.item(position).attributes["title"] == item_id
        until(lambda: follower.settled and not follower.degraded)


def test_a_log_that_cannot_be_read_for_a_while_is_reported_and_what_is_applied_goes_on(
    home: Path, catalogue: Catalogue, steered: Steered
) -> None:
    with following(home, steered) as follower:
        seq = follower.view().seq
        steered.error = CatalogueError("the store does not answer")
        until(lambda: follower.degraded)
        head = put(catalogue, "new")
        assert follower.view().seq == seq
        assert follower.trouble is None
        message = f"the catalogue cannot be read: the store does not answer; answers include changes up to {seq}"
        assert follower.degraded == [message]
        steered.error = None
        until(lambda: follower.view().seq == head)
        until(lambda: not follower.degraded)


def test_another_catalogue_is_never_served_and_the_right_one_is_again(
    home: Path, catalogue: Catalogue, steered: Steered
) -> None:
    with following(home, steered) as follower:
        steered.error = CatalogueReplaced("it is empty")
        until(lambda: follower.trouble == "it is empty")
        with pytest.raises(CatalogueReplaced, match="it is empty"):
            follower.view()
        steered.error = None
        until(lambda: follower.trouble is None)
        assert follower.view().seq == catalogue.head()


def test_an_older_state_is_never_served_also_when_as_many_changes_have_come_since(
    home: Path, catalogue: Catalogue, steered: Steered
) -> None:
    with following(home, steered) as follower:
        steered.back_by = 1
        until(lambda: follower.trouble is not None)
        assert "an older state of it was restored" in str(follower.trouble)
        put(catalogue, "a", "b")
        time.sleep(0.05)
        with pytest.raises(CatalogueReplaced, match="restart the service"):
            follower.view()


def test_a_restart_detects_an_older_state_by_the_snapshots(home: Path, catalogue: Catalogue, steered: Steered) -> None:
    put(catalogue, "a", "b", "c")
    make_snapshot(home, Request(force=True))
    first = [change.snapshot_id for change in catalogue.publications()][-1]
    catalogue.publish(first or "")
    steered.back_by = 3
    with following(home, steered) as follower:
        until(lambda: "an older state of it was restored, so acknowledged changes are lost" in str(follower.trouble))
        assert "snapshot" in str(follower.trouble)
        with pytest.raises(CatalogueReplaced):
            follower.view()


@pytest.mark.slow
def test_a_snapshot_made_while_another_is_loaded_is_no_sign_of_an_older_state(
    home: Path, catalogue: Catalogue, steered: Steered
) -> None:
    def head_and_then_a_snapshot() -> int:
        head = catalogue.head()
        put(catalogue, f"new-{head}")
        make_snapshot(home, Request(force=True))
        return head

    steered.head = head_and_then_a_snapshot
    state = Loader(Settings(home=home), steered)(catalogue.publications()[0].snapshot_id or "", None)
    assert state.snapshot.manifest.seq < catalogue.head()


def test_who_waits_for_a_change_goes_on_when_it_is_applied(home: Path, catalogue: Catalogue, steered: Steered) -> None:
    async def wait(follower: Follower) -> None:
        seq = follower.view().seq
        waiting = [asyncio.create_task(follower.reach(seq + n)) for n in (0, 1, 2, 2, 3)]
        await asyncio.sleep(0.05)
        assert [task.done() for task in waiting] == [True, False, False, False, False]
        await asyncio.to_thread(put, catalogue, "a", "b")
        views = await asyncio.gather(*waiting[:4])
        assert all(view.seq >= seq for view in views)
        assert views[2].position_of("b") is not None
        waiting[4].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[4]
        assert follower.waiting == []

    with following(home, steered) as follower:
        asyncio.run(wait(follower))


def test_another_model_s_records_in_bulk_are_shown_as_they_are_encoded_and_known_texts_are_not_encoded_again(
    home: Path, catalogue: Catalogue, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, batches = Encoder.encode_item_tokens, []

    def counting(self: Encoder, items: Any, *arguments: Any) -> Any:
        batches.append(len(items))
        return encode(self, items, *arguments)

    with following(home, steered) as follower:
        view = follower.view()
        known = [view.snapshot.item(row) for row in range(len(view.snapshot.item_ids))]
        monkeypatch.setattr(Encoder, "encode_item_tokens", counting)
        catalogue.put([CatalogueItem(item, None, None, "another tower") for item in known])
        head = put(catalogue, *(f"new-{n}" for n in range(200)))
        until(lambda: follower.view().seq == head)
    assert sum(batches) == 200
    assert max(batches) <= 64


def test_what_fails_next_to_following_does_not_end_it(home: Path, catalogue: Catalogue, steered: Steered) -> None:
    def broken(state: object) -> None:
        raise OSError("no space left")

    with following(home, steered, tick=broken) as follower:
        head = put(catalogue, "new")
        until(lambda: follower.view().seq == head)


def test_nothing_published_is_reported_and_looked_at_again(home: Path, catalogue: Catalogue, steered: Steered) -> None:
    published = catalogue.publications()[0].snapshot_id
    steered.publications = lambda: []
    with following(home, steered) as follower:
        with pytest.raises(NotReady, match="no snapshot is published; run"):
            follower.view()
        del steered.publications
        until(lambda: follower.state is not None)
        assert follower.view().snapshot.id == published


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["for good", "and on to a third"])
def test_who_goes_back_while_the_new_snapshot_is_loaded_is_not_served_it(
    home: Path, catalogue: Catalogue, again: bool
) -> None:
    load = Loader(Settings(home=home), catalogue)
    first = catalogue.publications()[0].snapshot_id
    loading, go_on, served = threading.Event(), threading.Event(), []

    def load_slowly(snapshot_id: str, before: Any) -> Any:
        state = load(snapshot_id, before)
        if snapshot_id != first:
            loading.set()
            assert go_on.wait(20)
        return state

    follower = Follower(catalogue, load_slowly, 0.01, swapped=lambda: served.append(follower.view().snapshot.id))
    follower.start()
    try:
        until(lambda: follower.state is not None)
        make_snapshot(home, Request(force=True))
        assert loading.wait(20)
        assert rollback(home, catalogue) == first
        third = make_snapshot(home, Request(force=True)).manifest.snapshot_id if again else first
        go_on.set()
        until(lambda: follower.settled and follower.view().seq == catalogue.head())
    finally:
        go_on.set()
        follower.close()
    assert served == list(dict.fromkeys([first, third]))


@pytest.mark.slow
def test_a_snapshot_in_use_stays_and_goes_after_it(home: Path, catalogue: Catalogue, steered: Steered) -> None:
    loader = Loader(Settings(home=home), catalogue)
    state = loader(catalogue.publications()[0].snapshot_id or "", None)
    in_use = state.snapshot.id
    for _ in range(2):
        assert in_use not in make_snapshot(home, Request(keep=1, force=True)).removed
    assert catalogue.changes(state.snapshot.manifest.seq, 1), "nor is the log cut off behind it"
    del state
    assert in_use in make_snapshot(home, Request(keep=1, force=True)).removed
    with pytest.raises(SnapshotError, match="there is no snapshot"):
        loader(in_use, None)
