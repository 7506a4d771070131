"""Rank the whole catalogue for held-out items, under two protocols, beside the floors.

'all items': every item is a candidate, as in the papers. 'unseen only': the items of the history are not; a user
whose held-out item is in the history (a repeat) has no place there and is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from seqrec.checkpoint import Checkpoint
from seqrec.encoder import Encoder, Vectors
from seqrec.errors import InputError
from seqrec.item_text import ItemTokens, TokenizedHistory, TokenizedItem
from seqrec.metric import TIE, Metric, ranked
from seqrec.model import SequenceModel
from training.data import Cases, Dataset, Rows, Split
from training.floors import ItemKnn, item_knns, popularity
from training.metrics import Metrics, Ranks, ranks
from training.texts import DistinctTexts

Protocol = Literal["all items", "unseen only"]
PROTOCOLS: tuple[Protocol, ...] = ("all items", "unseen only")

Group = Literal["all targets", "cold targets", "warm targets"]
"""Cold targets are items that training saw neither as a target nor in a history."""

K = 10
SCORES_AT_ONCE = 2**23
"""32 MiB of float32; ranking makes a few arrays of that size."""

Scorer = Callable[[Rows], npt.NDArray[np.float32]]
"""Numbers of cases [b] -> scores [b, n] of every item, higher is better; the array is the caller's to change."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a method, on one group of targets."""

    method: str
    group: Group
    metrics: dict[Protocol, Metrics]


@dataclass(frozen=True)
class Evaluation:
    split: Split
    users: int
    items: int
    data_digest: str
    checkpoint_digest: str
    rows: list[Row]


def evaluate(
    encoder: Encoder,
    dataset: Dataset,
    split: Split,
    progress: Callable[[str, int, int], object] = lambda *_: None,
    encoded: EncodedItems | None = None,
) -> Evaluation:
    """The model beside popularity, last-item and item-kNN. `progress(what, done, of)` follows the encoding.

    `encoded`: the items, where the caller has encoded them already.
    """
    cases = dataset.cases(split)
    encoded = encoded or EncodedItems.of(encoder, dataset, progress)
    queries = encode_cases(encoder, encoded.tokens, dataset, cases, progress)
    popular = popularity(dataset)
    knn = best_item_knn(dataset, split)
    methods: list[tuple[str, Scorer]] = [
        ("popularity", lambda numbers: np.repeat(popular[None], len(numbers), axis=0)),
        ("last item", lambda numbers: encoded.scores(encoded.of_rows(_last(cases, numbers)))),
        (
            f"item-kNN (window {knn.window}, last {knn.last})",
            lambda numbers: knn.scores([cases.histories[number] for number in numbers]),
        ),
        (encoder.checkpoint.model_name, lambda numbers: encoded.scores(queries[numbers])),
    ]
    warm = dataset.trained_rows[cases.targets]
    groups: list[tuple[Group, npt.NDArray[np.bool_]]] = [("all targets", np.ones(len(cases), np.bool_))]
    if not warm.all():
        groups += [("warm targets", warm), ("cold targets", ~warm)]
    measured = [(name, case_ranks(scorer, cases, len(dataset.items))) for name, scorer in methods]
    rows = [
        Row(name, group, {protocol: of_protocol[protocol].metrics(members) for protocol in PROTOCOLS})
        for group, members in groups
        for name, of_protocol in measured
    ]
    return Evaluation(split, len(cases), len(dataset.items), dataset.digest, encoder.checkpoint.digest, rows)


@dataclass(frozen=True, eq=False)
class EncodedItems:
    """Item vectors, one for each distinct text, so that items that read the same tie exactly."""

    tokens: ItemTokens
    texts: DistinctTexts
    vectors: Vectors  # [t, dim]
    metric: Metric

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        dataset: Dataset,
        progress: Callable[[str, int, int], object] = lambda *_: None,
        tokens: ItemTokens | None = None,
    ) -> EncodedItems:
        """`tokens`: of the items, where the caller has made them. Raises InputError for vectors that are not finite."""
        tokens = encoder.tokenize_items(dataset.items) if tokens is None else tokens
        texts = DistinctTexts.of(tokens)
        following = _Following(progress, "items", len(texts))
        vectors = encoder.encode_item_tokens([tokens[row] for row in texts.rows], following)
        return cls(tokens, texts, _finite(vectors, "item"), encoder.metric)

    def scores(self, queries: Vectors) -> npt.NDArray[np.float32]:
        """queries [b, dim] -> [b, n]"""
        return self.metric.scores(queries, self.vectors)[:, self.texts.text_of]

    def of_rows(self, rows: Rows) -> Vectors:
        """-> [len(rows), dim]"""
        return self.vectors[self.texts.text_of[rows]]


def encode_cases(
    encoder: Encoder,
    tokens: Sequence[TokenizedItem],
    dataset: Dataset,
    cases: Cases,
    progress: Callable[[str, int, int], object] = lambda *_: None,
) -> Vectors:
    """The query vector of each case, [m, dim]. Raises InputError if they are no finite numbers."""
    items = list(tokens)
    histories = [
        TokenizedHistory([items[row] for row in history], dataset.user_ids[user])
        for user, history in zip(cases.users, cases.histories, strict=True)
    ]
    following = _Following(progress, "histories", len(histories))
    return _finite(encoder.encode_history_tokens(histories, following), "history")


@dataclass(frozen=True, eq=False)
class CaseRanks:
    """Both ranks of each case's target [m], and which cases count under the protocol [m]."""

    favourable: Ranks
    pessimistic: Ranks
    counted: npt.NDArray[np.bool_]

    def metrics(self, members: npt.NDArray[np.bool_]) -> Metrics:
        chosen = self.counted & members
        return Metrics.of(self.favourable[chosen], self.pessimistic[chosen], K)


def case_ranks(
    scorer: Scorer, cases: Cases, items: int, protocols: Sequence[Protocol] = PROTOCOLS
) -> dict[Protocol, CaseRanks]:
    """Rank the target of every case among all items. Memory is bounded: a few arrays of SCORES_AT_ONCE numbers."""
    found = {p: (np.zeros(len(cases), np.int64), np.zeros(len(cases), np.int64)) for p in protocols}
    fresh = np.array([target not in history for target, history in zip(cases.targets, cases.histories, strict=True)])
    for numbers in _chunks(len(cases), max(1, SCORES_AT_ONCE // items)):
        scores = scorer(numbers)
        for protocol in protocols:
            if protocol == "unseen only":
                for row, number in enumerate(numbers):
                    if fresh[number]:
                        scores[row, cases.histories[number]] = -np.inf
            for into, values in zip(found[protocol], ranks(scores, cases.targets[numbers]), strict=True):
                into[numbers] = values
    everyone = np.ones(len(cases), np.bool_)
    return {p: CaseRanks(*found[p], fresh if p == "unseen only" else everyone) for p in protocols}


def best_item_knn(dataset: Dataset, split: Split) -> ItemKnn:
    """The setting with the highest NDCG@10 on validation, all items, counted anew on what `split` may know."""
    cases = dataset.cases("valid").sample(5000, seed=0)

    def quality(knn: ItemKnn) -> float:
        of_protocol = case_ranks(
            lambda numbers: knn.scores([cases.histories[number] for number in numbers]),
            cases,
            len(dataset.items),
            ("all items",),
        )
        return of_protocol["all items"].metrics(np.ones(len(cases), np.bool_)).ndcg_pessimistic

    best = max(item_knns(dataset, "valid"), key=quality)
    return next(item_knns(dataset, split, [best.window], [best.last]))


def validation_metrics(encoder: Encoder, dataset: Dataset, cases: Cases, tokens: ItemTokens | None = None) -> Metrics:
    """The model alone, all items ranked: what training is steered by. `tokens` as for `EncodedItems.of`."""
    encoded = EncodedItems.of(encoder, dataset, tokens=tokens)
    queries = encode_cases(encoder, encoded.tokens, dataset, cases)
    of_protocol = case_ranks(lambda numbers: encoded.scores(queries[numbers]), cases, len(dataset.items), PROTOCOLS[:1])
    return of_protocol["all items"].metrics(np.ones(len(cases), np.bool_))


def encoder_of(model: SequenceModel, model_name: str, device: str | None) -> Encoder:
    """An Encoder over a model in training, which is in no directory yet: the digests are empty."""
    nowhere = Checkpoint(Path(), model_name, "", "", "", "", "", history_model=model, item_model=model)
    return Encoder(nowhere, device)


def top_k(
    encoder: Encoder,
    dataset: Dataset,
    users: Sequence[str],
    k: int,
    unseen: bool,
    split: Split = "test",
    encoded: EncodedItems | None = None,
) -> list[list[tuple[str, float]]]:
    """The best k items for each user, from the history that `split` asks with: (item id, score), best first.

    Scores within TIE are ordered by item id, as the service orders them. `unseen` leaves the history's items out;
    items that are not available are left out always. `encoded` as for `evaluate`. Raises InputError for a user
    without a case.
    """
    cases = dataset.cases(split)
    case_of = {dataset.user_ids[user]: number for number, user in enumerate(cases.users)}
    missing = [user for user in users if user not in case_of]
    if missing:
        raise InputError(f"no user {missing[0]!r} with three events or more", "users")
    numbers = np.array([case_of[user] for user in users], dtype=np.int64)
    chosen = Cases(cases.users[numbers], [cases.histories[number] for number in numbers], cases.targets[numbers])
    encoded = encoded or EncodedItems.of(encoder, dataset)
    queries = encode_cases(encoder, encoded.tokens, dataset, chosen)
    hidden = np.array([not item.available for item in dataset.items])
    answers = []
    for case, history in enumerate(chosen.histories):
        scores = encoded.scores(queries[case : case + 1])[0]
        scores[hidden] = -np.inf
        if unseen:
            scores[history] = -np.inf
        answers.append(_best(dataset, scores, k))
    return answers


def _best(dataset: Dataset, scores: npt.NDArray[np.float32], k: int) -> list[tuple[str, float]]:
    allowed = int(np.isfinite(scores).sum())
    k = min(k, allowed)
    if not k:
        return []
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    rows = np.flatnonzero(scores >= kth - 2 * TIE)  # a run of ties may reach past the k-th
    ids = [dataset.items[int(row)].item_id for row in rows]
    return [(ids[place], float(scores[rows[place]])) for place in ranked(ids, scores[rows])[:k]]


def _last(cases: Cases, numbers: Rows) -> Rows:
    return np.array([cases.histories[number][-1] for number in numbers], dtype=np.int64)


def _chunks(count: int, size: int) -> Iterator[Rows]:
    for begin in range(0, count, size):
        yield np.arange(begin, min(begin + size, count))


def _finite(vectors: Vectors, what: str) -> Vectors:
    if not np.isfinite(vectors).all():
        raise InputError(f"the model gives {what} vectors that are not finite: its weights are broken")
    return vectors


class _Following:
    """Turns "so many more" into "so many of all"."""

    def __init__(self, progress: Callable[[str, int, int], object], what: str, of: int) -> None:
        self.progress, self.what, self.of, self.done = progress, what, of, 0

    def __call__(self, more: int) -> None:
        self.done += more
        self.progress(self.what, self.done, self.of)
