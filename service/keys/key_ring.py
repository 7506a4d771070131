"""The keys that a worker knows: read at start, then followed, so that a revoked key is refused within 250 ms."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from index.keys.base import ApiKey, KeyStore, digest_of
from seqrec.errors import CatalogueError

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 0.1
"""How often the store is read. A reading takes well under a millisecond."""
_RETRY_SECONDS = 0.25


class KeyRing:
    """Safe for several threads. `start` reads the keys and begins to follow them, `close` ends that.

    While the store cannot be read, the keys that were read last stay valid, and `trouble` gives the reason.
    """

    def __init__(self, open_store: Callable[[], KeyStore], allow_anonymous: bool) -> None:
        """`allow_anonymous`: whether requests without a key are served as long as there has never been a key."""
        self._open_store = open_store
        self._allow_anonymous = allow_anonymous
        self._store: KeyStore | None = None
        self._version: int | None = None
        self._by_digest: dict[str, ApiKey] | None = None
        self._had_keys = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.trouble: str | None = "the API keys are being read"

    def start(self) -> None:
        self._ended.clear()
        self._try()
        self._thread = threading.Thread(target=self._follow, name="keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._drop_store()

    @property
    def loaded(self) -> bool:
        return self._by_digest is not None

    @property
    def anonymous(self) -> bool:
        """Whether requests are served without a key. Never again once there was one, even if the store is emptied."""
        return self._allow_anonymous and self.loaded and not self._had_keys

    def open_store(self) -> KeyStore:
        """The store, for a caller that changes keys and closes it. Raises CatalogueError."""
        return self._open_store()

    def find(self, secret: str) -> ApiKey | None:
        """The active key with this secret.

        The time it takes reveals nothing useful: the SHA-256 of the secret is looked up and compared, and to
        know the beginning of one leads to no secret. The comparison takes the same time for all digests as well.
        """
        digest = digest_of(secret)
        key = (self._by_digest or {}).get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest) or key.state(time.time()) != "active":
            return None
        return key

    def _follow(self) -> None:
        while not self._ended.wait(FOLLOW_SECONDS if self.trouble is None else _RETRY_SECONDS):
            self._try()

    def _try(self) -> None:
        try:
            self._read()
        except Exception as error:  # whatever it is, keys must be followed again as soon as that is possible
            if str(error) != self.trouble:
                log.error("the API keys cannot be read, retrying: %s", error, exc_info=not _expected(error))
            self.trouble = str(error) or type(error).__name__
            self._drop_store()

    def _read(self) -> None:
        if self._store is None:
            self._store = self._open_store()
        version = self._store.version()  # before the keys: what changes in between is read again
        if version != self._version or self._by_digest is None:
            keys = self._store.all()
            self._log_changes(keys)
            self._had_keys = self._had_keys or bool(keys)
            self._by_digest, self._version = {key.digest: key for key in keys}, version
        self.trouble = None

    def _log_changes(self, keys: list[ApiKey]) -> None:
        now = time.time()
        before = {key.name for key in (self._by_digest or {}).values() if key.state(now) == "active"}
        after = {key.name for key in keys if key.state(now) == "active"}
        if after - before:
            log.info("API keys are valid: %s", ", ".join(sorted(after - before)))
        if before - after:
            log.info("API keys are no longer valid: %s", ", ".join(sorted(before - after)))

    def _drop_store(self) -> None:
        """A file that was replaced is opened again."""
        store, self._store, self._version = self._store, None, None
        if store is not None:
            with suppress(CatalogueError):
                store.close()


def _expected(error: Exception) -> bool:
    return isinstance(error, CatalogueError)
