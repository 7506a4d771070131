"""The engine of a snapshot in this process."""

from __future__ import annotations

from index.snapshot.snapshot import Snapshot
from service.live.engines.base import SearchEngine
from service.live.engines.in_process import InProcessEngine
from service.live.filters import SnapshotFilters
from tests.contracts.search_engine_contract import SearchEngineContract


class TestInProcess(SearchEngineContract):
    def make(self, snapshot: Snapshot) -> SearchEngine:
        return InProcessEngine(snapshot, SnapshotFilters(snapshot))
