"""Models and baselines on the same held-out items, with intervals, paired tests and breakdowns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seqrec.encoder import Encoder
from training.data.dataset import Cases, Dataset, Rows, Split
from training.evaluation.baselines import Scores, best_item_knn, popularity
from training.evaluation.evaluate import NO_PAIRS, TRAINING_COUNTS, EncodedItems, model_scorers
from training.evaluation.groups import Group, groups_of
from training.evaluation.metrics import Values
from training.evaluation.ranking import CANDIDATE_MODES, PESSIMISTIC, CandidateMode, CaseRanks, Scorer, case_ranks
from training.evaluation.significance import interval, randomization_p, resampled_means

RESAMPLES = 1000
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, eq=False)
class Model:
    """A checkpoint to compare: its name in the table, its encoder and its item vectors."""

    name: str
    encoder: Encoder
    items: EncodedItems


@dataclass(frozen=True, slots=True)
class Figure:
    """An average over users and its 95 % interval. NaN without users; coverage has no interval."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Row:
    """A method under one candidate mode (`protocol`), on one group of cases.

    figures: NDCG@k, Recall@k, MRR@k, MRR, each also with the target ranked behind its ties, 'popularity@k' (mean number
    of training events of the recommended items), and for all targets 'coverage@k' (share of the catalogue recommended
    to at least one user).
    """

    method: str
    protocol: CandidateMode
    breakdown: str
    group: str
    users: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class PairedTest:
    """The difference between `method` and `other` over the same users, with its 95 % interval."""

    method: str
    other: str
    protocol: CandidateMode
    figure: str
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Evaluation:
    split: Split
    rule: str
    users: int
    items: int
    ks: tuple[int, ...]
    resamples: int
    seed: int
    data_digest: str
    checkpoints: Mapping[str, str]  # name of the model -> digest
    rows: Sequence[Row]
    tests: Sequence[PairedTest]

    def row(self, method: str, protocol: CandidateMode, group: str = "all targets") -> Row:
        return next(row for row in self.rows if (row.method, row.protocol, row.group) == (method, protocol, group))


def evaluate(
    models: Sequence[Model],
    dataset: Dataset,
    split: Split = "test",
    ks: Sequence[int] = (10,),
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress = lambda *_: None,
    most_users: int | None = None,
) -> Evaluation:
    """Compares the models with popularity, last item and item-kNN. `progress(what, done, of)` is called as work is
    done. `most_users`: a random sample of so many users, where there are more.

    Memory: one array [cases, figures] per candidate mode in addition to that of ranking. Raises InputError if `split`
    holds nothing out.
    """
    cases = dataset.cases(split)
    cases = cases if most_users is None else cases.sample(most_users, seed)
    ks = tuple(sorted(set(ks)))
    popular = popularity(dataset)
    measured: dict[str, dict[CandidateMode, CaseRanks]] = {}
    methods = _methods(models, dataset, cases, split, popular, progress)
    for number, (name, scorer) in enumerate(methods, 1):
        measured[name] = case_ranks(scorer, cases, len(dataset.items), depth=max(ks))
        progress("ranking", number, len(methods))
    groups = groups_of(dataset, cases)
    rows: list[Row] = []
    tests: list[PairedTest] = []
    for protocol in CANDIDATE_MODES:
        of_protocol = {name: ranked[protocol] for name, ranked in measured.items()}
        new_rows, new_tests = _figures(
            of_protocol, protocol, groups, popular, ks, resamples, seed, [m.name for m in models]
        )
        rows += new_rows
        tests += new_tests
    return Evaluation(
        split=split,
        rule=str(dataset.rule),
        users=len(cases),
        items=len(dataset.items),
        ks=ks,
        resamples=resamples,
        seed=seed,
        data_digest=dataset.digest,
        checkpoints={model.name: model.encoder.checkpoint.digest for model in models},
        rows=rows,
        tests=tests,
    )


def _methods(
    models: Sequence[Model], dataset: Dataset, cases: Cases, split: Split, popular: Scores, progress: Progress
) -> list[tuple[str, Scorer]]:
    knn = best_item_knn(dataset, split)
    last = np.array([history[-1] for history in cases.histories], dtype=np.int64)
    methods: list[tuple[str, Scorer]] = [
        ("popularity", lambda numbers: np.repeat(popular[None], len(numbers), axis=0)),
        (
            knn.label,
            lambda numbers: knn.scores([cases.histories[number] for number in numbers]),
        ),
    ]
    for model in models:
        if not model.encoder.cold_items:
            continue  # items and queries are in different spaces, so nearest items mean nothing
        name = "last item" if len(models) == 1 else f"last item, {model.name}"
        methods.append((name, _nearest(model.items, last)))
    for model in models:
        scorers = model_scorers(model.encoder, model.items, dataset, cases, split, progress)
        methods += [(f"{model.name}, {variant}", scorer) for variant, scorer in scorers.items() if variant]
        methods.append((model.name, scorers[""]))
    return methods


def _nearest(items: EncodedItems, last: Rows) -> Scorer:
    return lambda numbers: items.scores(items.of_rows(last[numbers]))


def _figures(
    measured: Mapping[str, CaseRanks],
    protocol: CandidateMode,
    groups: Sequence[Group],
    popular: Scores,
    ks: Sequence[int],
    resamples: int,
    seed: int,
    models: Sequence[str],
) -> tuple[list[Row], list[PairedTest]]:
    counted = next(iter(measured.values())).counted
    columns: dict[tuple[str, str], Values] = {}  # (method, figure) -> values of the counted cases
    coverage: dict[tuple[str, str], float] = {}
    for name, ranked in measured.items():
        columns |= {(name, figure): values for figure, values in ranked.figures(ks).items()}
        for k in ks:
            best = ranked.recommended[counted, :k]
            there = best >= 0
            mean = np.where(there, popular[best], 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
            columns[name, f"popularity@{k}"] = mean
            coverage[name, f"coverage@{k}"] = len(np.unique(best[there])) / len(popular)
    values = np.stack(list(columns.values()), axis=1)  # [users, figures]
    members = [group.members[counted] for group in groups]
    means = resampled_means(values, members, resamples, seed)  # [groups, resamples, figures]
    rows = []
    for group, chosen, drawn in zip(groups, members, means, strict=True):
        users = int(chosen.sum())
        own = values[chosen].mean(axis=0) if users else np.full(len(columns), np.nan)
        low, high = interval(drawn)
        of_column = {key: Figure(*map(float, ends)) for key, *ends in zip(columns, own, low, high, strict=True)}
        for name in measured:
            figures = {figure: found for (method, figure), found in of_column.items() if method == name}
            if group is groups[0] and users:
                figures |= {figure: Figure(share) for (method, figure), share in coverage.items() if method == name}
            rows.append(Row(name, protocol, group.breakdown, group.name, users, figures))
    return rows, _tests(columns, values, means[0], protocol, list(measured), models, ks[0], seed)


def _tests(
    columns: Mapping[tuple[str, str], Values],
    values: Values,
    drawn: Values,
    protocol: CandidateMode,
    methods: Sequence[str],
    models: Sequence[str],
    k: int,
    seed: int,
) -> list[PairedTest]:
    """Every model against every baseline and the models before it, on NDCG@k (also behind ties), Recall@k and MRR."""
    others = [(one, other) for one in models for other in models if one != other]
    foreign = {(one, f"last item, {other}") for one, other in others}
    foreign |= {(one, f"{other}, {variant}") for one, other in others for variant in (NO_PAIRS, TRAINING_COUNTS)}
    pairs = [(one, other) for place, one in enumerate(methods) if one in models for other in methods[:place]]
    pairs = [pair for pair in pairs if pair not in foreign]
    place_of = {key: place for place, key in enumerate(columns)}
    names = (f"NDCG@{k}", f"NDCG@{k}{PESSIMISTIC}", f"Recall@{k}", "MRR")
    wanted = [(one, other, figure) for one, other in pairs for figure in names]
    ahead = np.array([place_of[one, figure] for one, _, figure in wanted])
    behind = np.array([place_of[other, figure] for _, other, figure in wanted])
    if not len(values):
        return []
    differences = values[:, ahead] - values[:, behind]
    low, high = interval(drawn[:, ahead] - drawn[:, behind])
    p = randomization_p(differences, len(drawn), seed)
    return [
        PairedTest(one, other, protocol, figure, *map(float, found))
        for (one, other, figure), *found in zip(wanted, differences.mean(axis=0), low, high, p, strict=True)
    ]
