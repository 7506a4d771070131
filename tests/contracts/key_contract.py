"""What every store of API keys promises. An implementation subclasses `KeyContract` and says how it is opened."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.keys.base import KeyStore, make_key
from seqrec.errors import InputError


class KeyContract:
    def open(self, location: str) -> KeyStore:
        raise AssertionError("a subclass says this")

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        raise AssertionError("a subclass says this")

    @pytest.fixture
    def store(self, location: str) -> Iterator[KeyStore]:
        store = self.open(location)
        yield store
        store.close()

    def test_has_none_at_first(self, store: KeyStore) -> None:
        assert store.all() == []

    def test_keys_come_back_as_they_were_made(self, store: KeyStore, location: str) -> None:
        shop, _ = make_key("shop", ["recommend", "write"], 3600.0, "100/second", "1000/day")
        ops, _ = make_key("ops", ["admin"])
        store.add(shop)
        store.add(ops)
        other = self.open(location)
        assert store.all() == other.all() == [ops, shop]
        other.close()

    def test_a_revoked_key_stays_and_is_revoked_once(self, store: KeyStore) -> None:
        key, _ = make_key("shop", ["recommend"])
        store.add(key)
        now = time.time()
        assert store.revoke("shop", now).revoked == now
        assert store.revoke("shop", now + 5).revoked == now
        [kept] = store.all()
        assert kept.state(now) == "revoked"

    def test_a_name_is_used_again_only_when_its_key_has_ended(self, store: KeyStore) -> None:
        first, _ = make_key("shop", ["recommend"])
        second, _ = make_key("shop", ["write"])
        store.add(first)
        with pytest.raises(InputError, match="there is an active key 'shop'; revoke it first"):
            store.add(second)
        assert store.all() == [first]
        store.revoke("shop", time.time())
        store.add(second)
        assert store.all() == [second]
        short, _ = make_key("brief", ["recommend"], 1e-6)
        store.add(short)
        time.sleep(0.001)
        long, _ = make_key("brief", ["recommend"])
        store.add(long)
        assert store.all() == [long, second]

    def test_an_unknown_name_cannot_be_revoked(self, store: KeyStore) -> None:
        before = store.version()
        with pytest.raises(InputError, match="there is no key 'nobody'; `seqrec keys list` shows all"):
            store.revoke("nobody", time.time())
        assert store.version() == before

    def test_each_change_changes_the_version_everywhere(self, store: KeyStore, location: str) -> None:
        other = self.open(location)
        versions = {other.version()}
        store.add(make_key("a", ["recommend"])[0])
        versions.add(other.version())
        store.add(make_key("b", ["recommend"])[0])
        versions.add(other.version())
        store.revoke("a", time.time())
        versions.add(other.version())
        assert len(versions) == 4
        assert store.version() == other.version()
        other.close()

    def test_of_writers_at_once_one_gets_the_name(self, store: KeyStore) -> None:
        added: list[str] = []
        refused: list[InputError] = []
        barrier = threading.Barrier(6)

        def add() -> None:
            key, _ = make_key("shop", ["recommend"])
            barrier.wait()
            try:
                store.add(key)
                added.append(key.digest)
            except InputError as error:
                refused.append(error)

        threads = [threading.Thread(target=add) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(added) == 1
        assert len(refused) == 5
        assert [key.digest for key in store.all()] == added
