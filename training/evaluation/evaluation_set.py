"""Validation of pretraining: held-out items of its own domains and of zero-shot data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from seqrec.data.items import OnError
from seqrec.encoder import Encoder
from seqrec.errors import InputError
from seqrec.text.item_text import ItemTokens, Recipe
from training.data.dataset import Cases, Dataset, Rows, Split, read_dataset
from training.data.splits import LEAVE_ONE_OUT, SplitConfig
from training.evaluation.evaluate import EncodedItems, encode_cases
from training.evaluation.metrics import Metrics
from training.evaluation.ranking import case_ranks

ITEMS = ("items.jsonl", "items.jsonl.gz")
INTERACTIONS = ("interactions.csv", "interactions.csv.gz", "interactions.parquet")


def read_folder(
    folder: str | Path, recipe: Recipe | None, on_error: OnError = "raise", rule: SplitConfig = LEAVE_ONE_OUT
) -> Dataset:
    """Reads items and interactions from `folder`. Raises InputError if they are missing, and as `read_dataset`."""
    return read_dataset(_one_of(folder, ITEMS), _one_of(folder, INTERACTIONS), recipe, on_error, rule)


def _one_of(folder: str | Path, names: Sequence[str]) -> Path:
    there = [Path(folder) / name for name in names if (Path(folder) / name).is_file()]
    if not there:
        raise InputError(f"{folder} is not a folder with {' or '.join(names)}")
    return there[0]


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Cases of one data set, and the candidate item rows [n], which include the relevant items."""

    name: str
    dataset: Dataset
    tokens: ItemTokens
    cases: Cases
    candidates: Rows

    @classmethod
    def of(
        cls, name: str, dataset: Dataset, tokens: ItemTokens, split: Split, users: int, items: int, seed: int
    ) -> Self:
        """At most `users` cases, and their relevant items plus `items` random candidates; 0: all items.

        Fewer candidates make a check cheaper; its figures then only compare with those of the same number.
        """
        cases = dataset.cases(split).sample(users, seed)
        every = len(dataset.items)
        drawn = np.random.default_rng(seed).permutation(every)[: items or every]
        return cls(name, dataset, tokens, cases, np.unique(np.concatenate([*cases.relevant, drawn])))

    def metrics(self, encoder: Encoder) -> Metrics:
        """Ranks all candidates, including those of the history."""
        candidates = ItemTokens.concatenate(self.tokens[int(row)] for row in self.candidates)
        encoded = EncodedItems.of(encoder, self.dataset, tokens=candidates)
        queries = encode_cases(encoder, self.tokens, self.dataset, self.cases)
        relevant = [np.searchsorted(self.candidates, rows) for rows in self.cases.relevant]
        cases = Cases(self.cases.users, self.cases.histories, relevant)
        ranked = case_ranks(lambda of: encoded.scores(queries[of]), cases, len(self.candidates), ("all items",))
        return ranked["all items"].metrics()
