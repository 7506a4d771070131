"""Checks the stores and the served snapshot regularly, as a process that starts would find them."""

from __future__ import annotations

import logging
import time

from index.catalogue.base import Catalogue
from index.catalogue.histories import HistoryStore
from index.engines.milvus import Milvus
from seqrec.errors import CatalogueError, EngineUnavailable, SeqrecError
from service.live.state import LiveState

log = logging.getLogger(__name__)

_EVERY_SECONDS = 5.0


class HealthCheck:
    """What is wrong although answers go on. `run` belongs to one thread, `problems` may be read by any."""

    def __init__(
        self,
        catalogue: Catalogue,
        histories: HistoryStore,
        every: float = _EVERY_SECONDS,
        *,
        engine: Milvus | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._histories = histories
        self._every = every
        self._engine = engine
        self._next = 0.0
        self.problems: list[str] = []

    def run(self, state: LiveState | None) -> None:
        """To be called often; checks at most once in `every` seconds."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        found: list[str] = []
        for check in (
            self._catalogue.check,
            self._histories.check,
            *([] if state is None else [state.snapshot.check_present]),
            *([] if self._engine is None else [self._engine.check]),
        ):
            try:
                check()
            except (CatalogueError, EngineUnavailable) as error:
                found.append(str(error))
            except (SeqrecError, OSError) as error:
                found.append(f"a restart would fail: {error}")
        for problem in found:
            if problem not in self.problems:
                log.error("%s", problem)
        self.problems = list(dict.fromkeys(found))
