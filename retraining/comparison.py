"""The candidate and the served model on the newest events, which neither was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from seqrec.encoder import Encoder
from seqrec.hybrid.scoring import HybridScorer
from seqrec.hybrid.settings import HybridSettings
from training.data.dataset import Cases, Dataset, Rows
from training.evaluation.comparison import Evaluation, Figure, Model, PairedTest, evaluate
from training.evaluation.evaluate import EncodedItems, encode_cases, known_counts, top_k
from training.evaluation.ranking import PESSIMISTIC, CandidateMode, case_ranks

SERVED, CANDIDATE = "served", "candidate"
FIGURE = f"NDCG@10{PESSIMISTIC}"
"""A model that gives all items the same score must not win."""
TOLERANCE = 0.05
"""How much worse the candidate may be at the lower end of the 95 % interval, as a share of the served NDCG@10."""
MOST_USERS = 20_000
"""The most users that are compared; a tenth of them compares the parts."""
SHOWN_ITEMS = 5

Progress = Callable[[str, int, int], object]
_OFF: Mapping[str, Mapping[str, float]] = {
    "co-occurrence": {"pairs": 0.0},
    "words": {"last_text": 0.0, "recent_text": 0.0},
    "dense": {},
}


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate may be served. `mode`: the candidates that the service ranks by default."""

    mode: CandidateMode
    served: Figure
    candidate: Figure
    test: PairedTest
    tolerance: float

    @property
    def limit(self) -> float:
        """The smallest allowed lower end of the difference."""
        return -self.tolerance * self.served.value

    @property
    def passed(self) -> bool:
        return self.test.low >= self.limit

    @property
    def reason(self) -> str:
        found = (
            f"NDCG@10 {self.candidate.value:.4f} against {self.served.value:.4f}, difference "
            f"{self.test.difference:+.4f} [{self.test.low:+.4f}, {self.test.high:+.4f}]"
        )
        if self.passed:
            return f"the candidate is not worse: {found}; the lower end may be {self.limit:+.4f}"
        how = "is worse" if self.test.high < 0 else "may be worse"
        return f"the candidate {how}: {found}; the lower end must be at least {self.limit:+.4f}"


@dataclass(frozen=True)
class Comparison:
    evaluation: Evaluation
    verdict: Verdict
    parts: Mapping[str, Mapping[str, float]]  # NDCG@10 of each part alone: of the served model and the candidate


@dataclass(frozen=True)
class ShownUser:
    """What a user got before and would get after: item ids, best first; what the user had (newest last), and then."""

    user_id: str
    history: Sequence[str]
    next_item: str
    served: Sequence[str]
    candidate: Sequence[str]


def compare(served: Encoder, candidate: Encoder, dataset: Dataset, tolerance: float, progress: Progress) -> Comparison:
    models = [
        Model(name, encoder, EncodedItems.of(encoder, dataset, progress))
        for name, encoder in ((SERVED, served), (CANDIDATE, candidate))
    ]
    evaluation = evaluate(models, dataset, "test", progress=progress, most_users=MOST_USERS)
    hybrid = served.hybrid
    mode: CandidateMode = "unseen only" if hybrid is None or hybrid.exclude_seen else "all items"
    test = next(
        test
        for test in evaluation.tests
        if (test.method, test.other, test.protocol, test.figure) == (CANDIDATE, SERVED, mode, FIGURE)
    )
    before, after = (evaluation.row(name, mode).figures[FIGURE] for name in (SERVED, CANDIDATE))
    cases = dataset.cases("test").sample(MOST_USERS // 10, seed=0)
    parts = {model.name: _parts(model, dataset, cases, mode) for model in models}
    return Comparison(evaluation, Verdict(mode, before, after, test, tolerance), parts)


def _parts(model: Model, dataset: Dataset, cases: Cases, mode: CandidateMode) -> Mapping[str, float]:
    settings = model.encoder.hybrid
    if settings is None:
        return {}
    counts = known_counts(settings.cooccurrence, dataset, "test")
    terms = model.encoder.term_vectors(list(model.items.tokens))
    queries = encode_cases(model.encoder, model.items.tokens, dataset, cases)
    found = {}
    weights = {
        "co-occurrence": settings.pairs,
        "words": settings.last_text + settings.recent_text,
        "dense": settings.dense,
    }
    for part in _OFF:
        if not weights[part]:
            continue
        off: dict[str, float] = {}
        for other in _OFF.keys() - {part}:
            off |= _OFF[other]
        alone: HybridSettings = replace(settings, seen=0.0, last_item=0.0, **off)  # type: ignore[arg-type]
        scorer = HybridScorer.of(alone, counts, terms)
        dense = float(part == "dense")

        def scores(numbers: Rows, scorer: HybridScorer = scorer, dense: float = dense) -> npt.NDArray[np.float32]:
            histories = [cases.histories[number] for number in numbers]
            return scorer.scores(histories, np.float32(dense) * model.items.scores(queries[numbers]))

        ranked = case_ranks(scores, cases, len(dataset.items))[mode]
        found[part] = ranked.metrics().ndcg_pessimistic
    return found


def show_users(served: Encoder, candidate: Encoder, dataset: Dataset, users: Sequence[str]) -> list[ShownUser]:
    cases = dataset.cases("test")
    number_of = {dataset.user_ids[user]: number for number, user in enumerate(cases.users)}
    answers = []
    for encoder in (served, candidate):
        unseen = encoder.hybrid is None or encoder.hybrid.exclude_seen
        best = top_k(encoder, dataset, users, SHOWN_ITEMS, unseen, "test")
        answers.append([[item_id for item_id, _ in own] for own in best])
    shown = []
    for user_id, before, after in zip(users, *answers, strict=True):
        number = number_of[user_id]
        history = [dataset.items[int(row)].item_id for row in cases.histories[number][-SHOWN_ITEMS:]]
        shown.append(ShownUser(user_id, history, dataset.items[int(cases.targets[number])].item_id, before, after))
    return shown
