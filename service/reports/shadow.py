"""A candidate answers what users asked, unseen by them, and how its answers differ is measured.

It computes on a thread of its own, with one core, after the answer to the user. What comes while it is behind is
dropped and counted; while requests of users wait or are computed, it does not begin. Its priority is that of the other
threads: on a busy machine one of low priority loses its core while it holds the interpreter, and all others wait.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from seqrec.runtime.thread_pool import start_single_core_threads
from service.deadline import Deadline
from service.engine.attributes import AttributeBudget
from service.engine.execution import Answer, answers, execute
from service.engine.plan import Plan, plan_recommendations, plan_similar
from service.engine.requests import PopularQuery, RecommendRequest, SimilarRequest
from service.engine.trace import Trace
from service.engine.user_history import UserHistory
from service.engine.vector_cache import VectorCache
from service.live.side import SideSnapshots
from service.live.state import View
from service.rules.experiments import Compared, Shadow

log = logging.getLogger(__name__)

MOST_WAITING = 16
FIRST = 10
"""Items of an answer that are compared."""
_COMPUTING = ("filter", "prepare", "encode", "search", "answer", "explain")
"""Stages of a request that the candidate has as well."""
_BUSY_SECONDS = 0.005
"""Between two looks whether there is still work for users."""


Observe = Callable[[str, str, str, Compared | None], object]
"""Placement, snapshot, result (compared, dropped, not_loaded or failed), and what was compared."""


@dataclass(frozen=True, eq=False)
class _Job:
    shadow: Shadow
    request: RecommendRequest | SimilarRequest
    placement: str
    user: UserHistory
    shown: Sequence[str]  # to the user
    seconds: float | None  # of computing that


class Shadows:
    """`offer` returns at once. The thread starts with the first request of a placement that has a shadow."""

    def __init__(
        self, sides: SideSnapshots, max_history: int, busy: Callable[[], object], observe: Observe, deadline: float
    ) -> None:
        """`busy`: whether there is work for users; `deadline`: seconds that the candidate may take for an answer."""
        self._sides = sides
        self._max_history = max_history
        self._busy = busy
        self._observe = observe
        self._deadline = deadline
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def offer(
        self, plans: Sequence[Plan], users: Mapping[str, UserHistory], answers: Sequence[Answer], trace: Trace
    ) -> None:
        for plan, answer in zip(plans, answers, strict=True):
            request = plan.request
            shadow = None if request is None else request.shadow
            if shadow is None or shadow.snapshot == answer.view.snapshot.id or random.random() >= shadow.share:
                continue
            if not isinstance(request, RecommendRequest | SimilarRequest) or request.holdout or _popular(request):
                continue
            user = UserHistory()
            if isinstance(request, RecommendRequest) and request.user_id is not None:
                user = users[request.user_id]
            alone = sum(trace.stages.get(stage, 0.0) for stage in _COMPUTING) / 1000 if len(plans) == 1 else None
            shown = [item.item_id for (item, _), hit in zip(answer.items, answer.hits, strict=True) if not hit.explored]
            self._put(_Job(shadow, request, answer.exposure.placement, user, shown[:FIRST], alone))

    def close(self, timeout: float = 10.0) -> None:
        if self._thread is None:
            return
        while not self._jobs.empty():
            with suppress(queue.Empty):
                self._jobs.get_nowait()
        with suppress(queue.Full):
            self._jobs.put(None, timeout=timeout)
        self._thread.join(timeout)

    def _put(self, job: _Job) -> None:
        try:
            if self._thread is None:
                start_single_core_threads(1, self._start)
            self._jobs.put_nowait(job)
        except (queue.Full, RuntimeError):  # no thread can be started: the answer to the user is not to fail
            self._observe(job.placement, job.shadow.snapshot, "dropped", None)

    def _start(self, begin: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._run, args=(begin,), name="shadow", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self, begin: Callable[[], object]) -> None:
        begin()
        said = ""
        while (job := self._jobs.get()) is not None:
            result, compared = "failed", None
            try:
                result, compared = self._compare(job)
            except Exception as error:
                if str(error) != said:  # once, not for every request
                    said = str(error)
                    log.exception("the shadow %s of %s cannot answer", job.shadow.snapshot, job.placement)
            self._observe(job.placement, job.shadow.snapshot, result, compared)
            del job  # an idle thread must not keep a request alive

    def _compare(self, job: _Job) -> tuple[str, Compared | None]:
        give_up = time.monotonic() + self._deadline
        while self._busy():
            if time.monotonic() > give_up:
                return "dropped", None
            time.sleep(_BUSY_SECONDS)
        follower = self._sides.get(job.shadow.snapshot)
        state = None if follower is None else follower.state
        if state is None:
            return "not_loaded", None
        began = time.perf_counter()
        found = [item.item_id for item, _ in self._answer(state.view, job).items][: max(1, len(job.shown))]
        seconds = time.perf_counter() - began
        if not job.shown and not found:
            return "compared", Compared(1.0, True, job.seconds, seconds)
        overlap = len(set(found) & set(job.shown)) / max(len(found), len(job.shown))
        return "compared", Compared(overlap, found[:1] == job.shown[:1], job.seconds, seconds)

    def _answer(self, view: View, job: _Job) -> Answer:
        """Without places that are explored: those differ by chance."""
        deadline = Deadline(self._deadline)
        if isinstance(job.request, SimilarRequest):
            plan = plan_similar(view, replace(job.request, explore=None, fields=[]), deadline)
        else:
            request = replace(job.request, explore=None, explain=False, fields=[])
            users = {} if request.user_id is None else {request.user_id: job.user}
            [plan] = plan_recommendations(view, [request], users, self._max_history, VectorCache(0), deadline)
        results = [None] if isinstance(plan.query, PopularQuery) else execute([plan])
        [answer] = answers([plan], results, AttributeBudget(0), deadline)
        return answer


def _popular(request: RecommendRequest | SimilarRequest) -> bool:
    return isinstance(request, RecommendRequest) and request.popular is not None
