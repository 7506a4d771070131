"""Evaluates one model on a data set: vectors, scores, validation metrics and top-k recommendations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from seqrec.encoder import Encoder, Vectors
from seqrec.errors import InputError
from seqrec.hybrid.cooccurrence import CooccurrenceSettings, Counts, count
from seqrec.hybrid.scoring import HybridScorer
from seqrec.hybrid.settings import HybridSettings
from seqrec.metric import TIE, Metric, ranked
from seqrec.text.item_text import ItemTokens, TokenizedHistory, TokenizedItem
from training.data.dataset import Cases, Dataset, Rows, Split
from training.data.unique_texts import UniqueTexts
from training.evaluation.metrics import Metrics
from training.evaluation.ranking import CANDIDATE_MODES, Scorer, case_ranks


@dataclass(frozen=True, eq=False)
class EncodedItems:
    """Item vectors, one per unique text, so that items of equal text tie exactly.

    An item that the model cannot encode, since it was not in training, has the score -inf: it ranks last and is never
    recommended.
    """

    tokens: ItemTokens
    texts: UniqueTexts
    vectors: Vectors  # [t, dim]
    metric: Metric
    unknown: Rows  # [u], items without a vector

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        dataset: Dataset,
        progress: Callable[[str, int, int], object] = lambda *_: None,
        tokens: ItemTokens | None = None,
    ) -> EncodedItems:
        """`tokens`: of the items, if already known. Raises InputError for vectors that are not finite."""
        tokens = encoder.tokenize_items(dataset.items) if tokens is None else tokens
        texts = UniqueTexts.of(tokens)
        counter = ProgressCounter(progress, "items", len(texts))
        vectors = _finite(encoder.encode_item_tokens([tokens[row] for row in texts.rows], counter), "item")
        unknown = np.zeros(0, np.int64) if encoder.cold_items else np.flatnonzero(tokens.lengths == 0)
        return cls(tokens, texts, vectors, encoder.metric, unknown)

    def scores(self, queries: Vectors) -> npt.NDArray[np.float32]:
        """queries [b, dim] -> [b, n]"""
        scores = self.metric.scores(queries, self.vectors)[:, self.texts.text_of]
        scores[:, self.unknown] = -np.inf
        return scores

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
    """The query vector of each case, [m, dim]. Raises InputError for vectors that are not finite."""
    items = list(tokens)
    histories = [
        TokenizedHistory([items[row] for row in history], dataset.user_ids[user])
        for user, history in zip(cases.users, cases.histories, strict=True)
    ]
    counter = ProgressCounter(progress, "histories", len(histories))
    return _finite(encoder.encode_history_tokens(histories, counter), "history")


NO_PAIRS = "no co-occurrence"
TRAINING_COUNTS = "counts of training"


def model_scorer(
    encoder: Encoder,
    encoded: EncodedItems,
    dataset: Dataset,
    cases: Cases,
    split: Split,
    progress: Callable[[str, int, int], object] = lambda *_: None,
) -> Scorer:
    """The scores of all items for `cases`, which are of `split`.

    A hybrid counts the events before those that `split` holds out, and gives items of the history the score -inf if its
    repeat rule excludes them.
    """
    return model_scorers(encoder, encoded, dataset, cases, split, progress, variants=False)[""]


def model_scorers(
    encoder: Encoder,
    encoded: EncodedItems,
    dataset: Dataset,
    cases: Cases,
    split: Split,
    progress: Callable[[str, int, int], object] = lambda *_: None,
    variants: bool = True,
) -> dict[str, Scorer]:
    """As `model_scorer`, at "". With `variants`, for a hybrid also what it is without co-occurrence (NO_PAIRS), and
    for the test split with the events before validation counted (TRAINING_COUNTS), as models are that only train.
    """
    queries = encode_cases(encoder, encoded.tokens, dataset, cases, progress)
    settings = encoder.hybrid
    if settings is None:
        return {"": lambda numbers: encoded.scores(queries[numbers])}
    terms = encoder.term_vectors(list(encoded.tokens))

    def scorer(settings: HybridSettings, counts_from: Split) -> Scorer:
        hybrid = HybridScorer.of(settings, known_counts(settings.cooccurrence, dataset, counts_from), terms)
        return hybrid_scorer(hybrid, encoded, queries, cases)

    found = {"": scorer(settings, split)}
    if variants:
        found[NO_PAIRS] = scorer(replace(settings, pairs=0.0, cold_boost=0.0), split)  # nothing to catch up with
        if split == "test":
            found[TRAINING_COUNTS] = scorer(settings, "valid")
    return found


def known_counts(settings: CooccurrenceSettings, dataset: Dataset, split: Split) -> Counts:
    """Of the events before those that `split` holds out, as scores read them."""
    rows, offsets = dataset.known_events(split)
    times = dataset.known_times(split) if settings.half_life else None
    counts = count(settings, rows, offsets, len(dataset.items), times, event_weights=dataset.known_weights(split))
    return counts.as_read(settings)


def hybrid_scorer(hybrid: HybridScorer, encoded: EncodedItems, queries: Vectors, cases: Cases) -> Scorer:
    """queries: float32 [cases, dim], the vectors of their histories."""

    def scores(numbers: Rows) -> npt.NDArray[np.float32]:
        histories = [cases.histories[number] for number in numbers]
        found = hybrid.scores(histories, encoded.scores(queries[numbers]))
        if hybrid.settings.exclude_seen:
            for row, history in zip(found, histories, strict=True):
                row[history] = -np.inf
        return found

    return scores


def validation_metrics(encoder: Encoder, dataset: Dataset, cases: Cases, tokens: ItemTokens | None = None) -> Metrics:
    """Metrics of the model over all items, which select the weights in training. `tokens` as for `EncodedItems.of`."""
    encoded = EncodedItems.of(encoder, dataset, tokens=tokens)
    scorer = model_scorer(encoder, encoded, dataset, cases, "valid")
    return case_ranks(scorer, cases, len(dataset.items), CANDIDATE_MODES[:1])["all items"].metrics()


def top_k(
    encoder: Encoder,
    dataset: Dataset,
    users: Sequence[str],
    k: int,
    unseen: bool,
    split: Split = "test",
    encoded: EncodedItems | None = None,
) -> list[list[tuple[str, float]]]:
    """The best k items for each user and the history of `split`: (item id, score), best first.

    Scores within TIE are ordered by item id, as in the service. `unseen` excludes the items of the history; unavailable
    items are always excluded. `encoded` as for `evaluate`. Raises InputError for a user without a case.
    """
    cases = dataset.cases(split)
    case_of = {dataset.user_ids[user]: number for number, user in enumerate(cases.users)}
    missing = [user for user in users if user not in case_of]
    if missing:
        raise InputError(f"no user {missing[0]!r} with a history and a held-out item", "users")
    numbers = np.array([case_of[user] for user in users], dtype=np.int64)
    chosen = cases.of(numbers)
    encoded = encoded or EncodedItems.of(encoder, dataset)
    scorer = model_scorer(encoder, encoded, dataset, chosen, split)
    hidden = np.array([not item.available for item in dataset.items])
    answers = []
    for case, history in enumerate(chosen.histories):
        scores = scorer(np.array([case]))[0]
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
    rows = np.flatnonzero(scores >= kth - 2 * TIE)  # ties may extend beyond the k-th
    ids = [dataset.items[int(row)].item_id for row in rows]
    return [(ids[place], float(scores[rows[place]])) for place in ranked(ids, scores[rows])[:k]]


def _finite(vectors: Vectors, what: str) -> Vectors:
    if not np.isfinite(vectors).all():
        raise InputError(f"the model computes {what} vectors that are not finite: its weights are damaged or diverged")
    return vectors


class ProgressCounter:
    """Turns increments into progress(what, done, of)."""

    def __init__(self, progress: Callable[[str, int, int], object], what: str, of: int) -> None:
        self.progress, self.what, self.of, self.done = progress, what, of, 0

    def __call__(self, more: int) -> None:
        self.done += more
        self.progress(self.what, self.done, self.of)
