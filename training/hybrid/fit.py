"""Chooses the settings of the hybrid score on validation: co-occurrence, weights, cold items, repeats.

A part (words, the dense model) is kept only if it wins out of fold: its weights are searched on one half of the users,
and on the other half it must bring something; both ways.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from seqrec.data.timestamps import FIRST_SECOND
from seqrec.errors import InputError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings, with_half_life
from seqrec.hybrid.settings import HybridSettings
from training.data.dataset import Cases, Dataset
from training.hybrid.search import LEAST_SPAN, Dense, Search, Table

log = logging.getLogger(__name__)

DAY = 86_400.0
DENSE_ITEMS = (1, 3, 0)
REPEATS = 0.003
"""Share of training events that repeat an item of the same user, at or above which answers may contain seen items."""
COSTLY = ("dense",)
"""Parts that cost time in every request. Words do not: every hybrid has them, for items without events."""
USERS = 20_000
"""Validation users that choose, at most."""


@dataclass(frozen=True)
class HybridFit:
    """What was chosen, and the validation NDCG@10 (unseen items) with one part after the other."""

    settings: HybridSettings
    repeats: float  # share of training events that repeat an item
    users: int  # that chose
    ndcg: Mapping[str, float] = field(default_factory=dict)
    kept: Sequence[str] = ()
    dropped: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_json(),
            "repeats": self.repeats,
            "users": self.users,
            "validation_ndcg@10_unseen": dict(self.ndcg),
            "kept": list(self.kept),
            "dropped": list(self.dropped),
        }


def fit_hybrid(
    dataset: Dataset,
    terms: csr_array,
    dense: Dense | None,
    seed: int = 0,
    half_life: float | None = None,
    known: CooccurrenceSettings | None = None,
) -> HybridFit:
    """terms: float32 [n, v], the items' term vectors. Takes seconds to minutes on one core; deterministic.

    half_life: seconds after which an event counts half as much, 0: all count alike, None: what validation prefers.
    known: settings that were good before, tried first.
    Raises InputError where nobody validates or has a second item, or where events without timestamps are to fade.
    """
    cases = dataset.cases("valid")
    unseen = [target not in history for target, history in zip(cases.targets, cases.histories, strict=True)]
    cases = (cases.of(np.flatnonzero(unseen)) if any(unseen) else _as_if_unseen(cases)).sample(USERS, seed)
    rows, offsets = dataset.known_events("valid")
    pairs = CooccurrenceSettings()
    times = dataset.known_times("valid")
    if half_life:
        if times is None:
            raise InputError("events can fade only if their times are known; set it to 0", "hybrid.half_life_days")
        pairs = with_half_life(pairs, half_life, times)
    weights_of_events = dataset.known_weights("valid")
    search = Search(rows, offsets, list(cases.histories), cases.targets, terms, times, weights_of_events)
    began = time.perf_counter()
    settings = search.with_words(HybridSettings(cooccurrence=pairs))
    dated = times is not None and bool(times.min() >= FIRST_SECOND and np.ptp(times) >= LEAST_SPAN)
    auto = half_life is None and dated
    if known is not None:
        fading = pairs.half_life or (known.half_life if auto else 0.0)
        known = replace(known, half_life=0.0, origin=0.0, mass=0.0)
        known = with_half_life(known, fading, times) if fading and times is not None else known
    settings = search.cooccurrence(settings, auto, known)
    log.info("co-occurrence: chosen in %.0f s", time.perf_counter() - began)
    if dense is not None:
        found = {items: search.dense_alone(dense, items) for items in DENSE_ITEMS}
        settings = replace(settings, dense_items=max(DENSE_ITEMS, key=lambda items: found[items]))
    table = search.table(settings, dense)
    parts = {"words": ("last_text", "recent_text")} | ({} if dense is None else {"dense": ("dense",)})
    ndcg = {"co-occurrence": table.ndcg({}).mean()}
    kept: list[str] = []
    weights: dict[str, float] = {}
    while remaining := [name for name in parts if name not in kept]:
        names = [column for part in kept for column in parts[part]]
        gains = {part: _out_of_fold(table, names, parts[part], part in COSTLY) for part in remaining}
        part = max(gains, key=lambda name: gains[name])
        if gains[part] <= 0:
            break
        kept.append(part)
        weights = table.search([*names, *parts[part]])
        ndcg[" + ".join(["co-occurrence", *kept])] = table.ndcg(weights).mean()
    # Histories without counts need an answer too.
    settings = replace(settings, **(weights or {"last_text": 0.05}))  # type: ignore[arg-type]
    settings = replace(settings, cold_boost=search.cold_boost(settings, dense, seed))
    repeats = dataset.repeated_share
    if repeats >= REPEATS:
        everyone = dataset.cases("valid").sample(USERS, seed)
        search = Search(rows, offsets, list(everyone.histories), everyone.targets, terms, times, weights_of_events)
        settings = search.own_items(settings, dense)
    return HybridFit(
        settings,
        repeats,
        len(cases),
        {name: float(value) for name, value in ndcg.items()},
        ["co-occurrence", *kept],
        [part for part in parts if part not in kept],
    )


def _as_if_unseen(cases: Cases) -> Cases:
    """Where everybody had before what is held out, as where all buy the same again: as if they had not had it."""
    histories = [history[history != target] for target, history in zip(cases.targets, cases.histories, strict=True)]
    left = np.flatnonzero([len(history) for history in histories])
    if not len(left):
        raise InputError(
            "every user has one item, again and again, so there is nothing that follows another; is this the right "
            "column of items?",
            "interactions",
        )
    return replace(cases, histories=histories).of(left)


def _out_of_fold(table: Table, names: Sequence[str], more: Sequence[str], costly: bool) -> float:
    """What `more` columns bring in addition to `names`: NDCG@10 on each half of the users by weights of the other half.

    What is `costly` brings its standard error less: an untrained model was kept for +0.0002.
    """
    gains = []
    for fold in (0, 1):
        chosen, judge = table.fold(1 - fold), table.fold(fold)
        without, joined = chosen.search(names), chosen.search([*names, *more])
        gains.append(judge.ndcg(joined) - judge.ndcg(without))
    gain = np.concatenate(gains)
    return float(gain.mean() - (gain.std() / len(gain) ** 0.5 if costly else 0.0))


def lines_of(fit: HybridFit) -> Iterator[str]:
    """What was chosen and why, for the log."""
    yield f"{fit.repeats:.1%} of training events repeat an item: " + (
        "seen items are left out"
        if fit.settings.exclude_seen
        else f"seen items may be answers ({fit.settings.seen:+g}, the last one {fit.settings.last_item:+g})"
    )
    if half_life := fit.settings.cooccurrence.half_life:
        yield f"an event counts half as much after {half_life / DAY:.0f} days"
    for parts, ndcg in fit.ndcg.items():
        yield f"{parts}: validation NDCG@10 {ndcg:.4f} (unseen items, {fit.users} users)"
    for name in fit.dropped:
        yield f"{name}: left out, since it wins nothing out of fold"
