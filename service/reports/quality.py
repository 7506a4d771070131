"""What operators see of the quality of answers: where they come from, what they cover, and what histories bring.

Sources are counted with every answer. Histories are looked at afterwards, on another thread: the newest ones, where
more come than it looks at.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from service.engine.execution import Answer
from service.engine.plan import Plan
from service.engine.requests import PopularQuery, RecommendRequest
from service.live.state import LiveState, View
from service.reports.attribution import item_source
from service.reports.coverage import AnsweredItems
from service.reports.drift import Drift

ObserveAnswer = Callable[[str, Mapping[str, int]], object]
"""Where an answer comes from, and how many of its items come from where."""
ObserveHistory = Callable[[int, int, int], object]
"""Items of a history: with events, without, and in no catalogue."""
_HISTORIES = 256
"""That wait to be looked at."""
_COVERAGE_SECONDS = 5.0


class Quality:
    """`offer` returns at once; `run` is called regularly, on one thread."""

    def __init__(self, answered: AnsweredItems, observe_answer: ObserveAnswer, observe_history: ObserveHistory) -> None:
        self._answered = answered
        self._observe_answer = observe_answer
        self._observe_history = observe_history
        self._histories: deque[tuple[View, Sequence[int], int]] = deque(maxlen=_HISTORIES)
        self._drift: Drift | None = None
        self._count_at = 0.0
        self.gauges: Mapping[str, float] = {}
        """As of the last `run`."""

    def offer(self, plans: Sequence[Plan], answers: Sequence[Answer]) -> None:
        for plan, answer in zip(plans, answers, strict=True):
            self._observe_answer(_source(plan), Counter(item_source(answer, hit) for hit in answer.hits))
            self._answered.add(item.item_id for item, _ in answer.items)
            if isinstance(plan.request, RecommendRequest) and plan.request.popular is None:
                self._histories.append((plan.view, plan.history, len(plan.unknown)))

    def run(self, state: LiveState) -> None:
        if self._drift is None or self._drift.snapshot is not state.snapshot:
            self._drift = Drift(state.view)
        for _ in range(len(self._histories)):
            view, history, unknown = self._histories.popleft()
            if view.snapshot is state.snapshot:  # not one of a variant
                counted, cold = self._drift.add(view, np.array(history, np.int64))
                self._observe_history(counted, cold, unknown)
        gauges = {**self.gauges, "seqrec_history_drift": self._drift.index}
        if time.monotonic() >= self._count_at:
            self._count_at = time.monotonic() + _COVERAGE_SECONDS
            view = state.view
            answerable = len(view.snapshot.item_ids) - view.snapshot_hidden + int(np.count_nonzero(view.delta_shown))
            covered = min(1.0, self._answered.count() / answerable) if answerable else 0.0
            gauges |= {"seqrec_answerable_items": answerable, "seqrec_catalogue_coverage": covered}
        self.gauges = gauges


def _source(plan: Plan) -> str:
    request = plan.request
    if request is not None and request.holdout:
        return "holdout"
    if not isinstance(request, RecommendRequest):
        return "similar"
    if request.popular is not None:
        return "popular" if request.popular.since is None else "trending"
    return "fallback:popular" if isinstance(plan.query, PopularQuery) else "model"
