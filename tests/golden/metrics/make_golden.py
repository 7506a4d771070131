"""Rankings and what ranx says of them. Run in an environment of its own: pip install ranx; python make_golden.py

ranx has no notion of ties: it sorts scores, and equal ones fall as they may. So both ends of what a tie can mean are
handed to it as scores without ties: the relevant items moved just above what they tie with, and just below.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ranx import Qrels, Run, evaluate

KS = (1, 5, 10, 20, 50)
USERS, ITEMS = 24, 60


def said_by_ranx(scores: np.ndarray, relevant: list[list[int]], shift: float) -> dict[str, list[float]]:
    """Each metric of each user, the relevant items' scores moved by `shift`."""
    moved = scores.copy()
    for row, items in enumerate(relevant):
        moved[row, items] += shift
    ids = [f"{item:03}" for item in range(scores.shape[1])]
    qrels = Qrels({f"{row:03}": {ids[item]: 1 for item in items} for row, items in enumerate(relevant)})
    run = Run({f"{row:03}": dict(zip(ids, map(float, values))) for row, values in enumerate(moved)})
    names = [f"{name}@{k}" for name in ("ndcg", "recall", "mrr") for k in KS] + ["mrr"]
    per_user = evaluate(qrels, run, names, return_mean=False)
    return {name: [float(value) for value in per_user[name]] for name in names}


def main() -> None:
    rng = np.random.default_rng(7)
    cases = {}
    for name, levels, most in (
        ("one", 0, 1),
        ("one_tied", 6, 1),
        ("several", 0, 12),
        ("several_tied", 6, 12),
        ("all_equal", 1, 4),
    ):
        # Scores are multiples of 1/64, exact in float32; without ties they are a permutation.
        if levels:
            scores = rng.integers(levels, size=(USERS, ITEMS)) / 64
        else:
            scores = np.stack([rng.permutation(ITEMS) for _ in range(USERS)]) / 64
        counts = rng.integers(1, most + 1, size=USERS)
        relevant = [sorted(rng.choice(ITEMS, count, replace=False).tolist()) for count in counts]
        cases[name] = {
            "scores_times_64": (scores * 64).astype(int).tolist(),
            "relevant": relevant,
            "favourable": said_by_ranx(scores, relevant, 1 / 256),
            "pessimistic": said_by_ranx(scores, relevant, -1 / 256),
        }
    record = {"ranx": version("ranx"), "numpy": version("numpy"), "ks": KS, "cases": cases}
    path = Path(__file__).parent / "ranx.json"
    path.write_text(json.dumps(record, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
