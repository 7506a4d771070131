"""Items and histories encoded a second: our packed Recformer beside the authors' formulation of it.

The authors' formulation is Hugging Face's LongformerModel with the four embeddings, a batch padded to its longest
sequence and then up to a multiple of the attention window, global attention on the first token. Both get the same
weights, texts and batches, in the order in which they come, and start from token ids; the vectors are compared, so
that what is timed is known to be the same mathematics. The two take turns in one process, and only ratios of turns
that stand side by side are quoted.

python -m benchmarks.encode --help
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LongformerConfig, LongformerModel

from seqrec.import_checkpoint import convert_weights
from seqrec.item_text import ItemText, Recipe, TokenizedHistory
from seqrec.items import read_interactions, read_items
from seqrec.models.recformer import TOKEN_TYPES, Recformer, RecformerConfig
from seqrec.tokenizer import read_tokenizer, train_bpe

DATA = Path(__file__).parents[1] / "data" / "online-retail"
ITEM_BATCH, HISTORY_BATCH = 32, 16
BUSY = 0.1
"""Cores' worth of other processes' work above which a run is called unclean."""
TOLERANCE = 2e-5
"""Largest difference of unit vectors that float32 rounding explains, over the layers of either formulation."""
PAD_ID, PAD_TYPE = 1, TOKEN_TYPES - 1

Batches = list[list[TokenizedHistory]]


class AuthorsRecformer(nn.Module):
    """The authors' formulation: padded batches through Hugging Face's Longformer."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.config = config
        self.longformer = LongformerModel(
            LongformerConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                attention_window=[config.attention_window] * config.num_layers,
                max_position_embeddings=config.max_position_embeddings,
                type_vocab_size=TOKEN_TYPES,
                layer_norm_eps=config.layer_norm_eps,
                pad_token_id=PAD_ID,
                initializer_range=0.06,  # enough that vectors differ and attention is not uniform: see `compare`
            ),
            add_pooling_layer=False,
        )
        self.item_positions = nn.Embedding(config.max_item_embeddings, config.hidden_size)

    def named_weights(self) -> dict[str, Tensor]:
        """All weights under the names of the authors' RecformerModel."""
        own = {"embeddings.item_position_embeddings.weight": self.item_positions.weight}
        return dict(self.longformer.state_dict()) | own

    def prepare(self, histories: Sequence[TokenizedHistory]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids, types, item positions and which tokens are real, int64 [b, n] each; n a multiple of the window."""
        limit = self.config.max_token_num
        rows = []
        for history in histories:
            items = history.items[: -self.config.max_item_embeddings : -1]  # newest first
            ids = np.concatenate([[self.config.cls_id], *(item.ids for item in items)])[:limit]
            types = np.concatenate([[0], *(item.types for item in items)])[:limit]
            places = np.repeat(np.arange(len(items) + 1), [1, *(len(item.ids) for item in items)])[:limit]
            rows.append((ids, types, places))
        window = self.config.attention_window
        n = -(-max(len(ids) for ids, _, _ in rows) // window) * window
        ids_, types_, places_, real = (np.zeros((len(rows), n), np.int64) for _ in range(4))
        ids_ += PAD_ID
        types_ += PAD_TYPE
        places_ += self.config.max_item_embeddings - 1
        for row, (ids, types, places) in enumerate(rows):
            ids_[row, : len(ids)], types_[row, : len(ids)], places_[row, : len(ids)] = ids, types, places
            real[row, : len(ids)] = 1
        return torch.from_numpy(ids_), torch.from_numpy(types_), torch.from_numpy(places_), torch.from_numpy(real)

    def forward(self, ids: Tensor, types: Tensor, places: Tensor, real: Tensor) -> Tensor:
        """Four of [b, n] -> the [CLS] of the last layer [b, d]"""
        first = self.config.first_position
        positions = torch.where(real > 0, real.cumsum(1) + first - 1, first - 1)
        attends_globally = torch.zeros_like(ids)
        attends_globally[:, 0] = 1
        states: Tensor = self.longformer(
            inputs_embeds=self.longformer.embeddings.word_embeddings(ids) + self.item_positions(places),
            attention_mask=real,
            global_attention_mask=attends_globally,
            token_type_ids=types,
            position_ids=positions,
        ).last_hidden_state
        return states[:, 0]


@dataclass(frozen=True)
class Result:
    """One line of the table. Rates are medians over the rounds; ratio: ours over the authors', round by round."""

    what: str
    sequences: int
    tokens: int
    padded_tokens: int
    authors_per_s: float
    ours_per_s: float
    ratio_median: float
    ratio_min: float
    ratio_max: float
    largest_difference: float
    """Of the unit vectors' components, between the two formulations."""
    spread: float
    """Standard deviation of a component over the sequences: what the difference is to be seen against."""


def read_batches(args: argparse.Namespace) -> tuple[ItemText, dict[str, Batches]]:
    """The text's recipe and tokenizer, and a sample of items and of users' histories in batches."""
    items = read_items(args.items)
    recipe = Recipe(tuple(args.attributes.split(",")))
    texts = (part for item in items for pair in recipe.texts(item.attributes) for part in pair)
    tokenizer = train_bpe(texts, args.vocab_size) if args.tokenizer is None else read_tokenizer(args.tokenizer)
    item_text = ItemText(recipe, tokenizer)
    tokens = item_text.tokenize(items)
    row_of = {item.item_id: row for row, item in enumerate(items)}
    events = read_interactions(args.interactions, row_of.keys())
    rows_of_user: dict[str, list[int]] = {}
    for at in np.argsort(events.timestamps, kind="stable").tolist():
        rows_of_user.setdefault(events.user_ids[at], []).append(row_of[events.item_ids[at]])
    rng = np.random.default_rng(args.seed)

    def sample(rows: Sequence[list[int]], count: int, batch: int) -> Batches:
        chosen = rng.choice(len(rows), min(count, len(rows)), replace=False)
        histories = [TokenizedHistory([tokens[row] for row in rows[at]]) for at in chosen.tolist()]
        return [histories[start : start + batch] for start in range(0, len(histories), batch)]

    return item_text, {
        "items": sample([[row] for row in range(len(items))], args.sample_items, ITEM_BATCH),
        "histories": sample(list(rows_of_user.values()), args.sample_histories, HISTORY_BATCH),
    }


def compare(what: str, batches: Batches, authors: AuthorsRecformer, ours: Recformer, rounds: int) -> Result:
    """Encode the batches with both, in turn, `rounds` times after one round that is not timed but compared."""
    device = authors.item_positions.weight.device
    shapes = [authors.prepare(batch)[3] for batch in batches]

    def encode_authors(batch: list[TokenizedHistory]) -> Tensor:
        vectors: Tensor = authors(*(part.to(device) for part in authors.prepare(batch)))
        return vectors

    def encode_ours(batch: list[TokenizedHistory]) -> Tensor:
        return ours.encode_histories(ours.prepare_histories(batch).to(device))

    expected = torch.cat([F.normalize(encode_authors(batch), dim=1) for batch in batches])
    got = torch.cat([F.normalize(encode_ours(batch), dim=1) for batch in batches])
    times = []
    for number in range(rounds):
        times.append((_seconds(encode_authors, batches), _seconds(encode_ours, batches)))
        print(f"{what}: round {number + 1} of {rounds}, ratio {times[-1][0] / times[-1][1]:.2f}", file=sys.stderr)
    ratios = [theirs / own for theirs, own in times]
    sequences = sum(map(len, batches))
    return Result(
        what=what,
        sequences=sequences,
        tokens=sum(int(real.sum()) for real in shapes),
        padded_tokens=sum(real.numel() for real in shapes),
        authors_per_s=sequences / statistics.median(theirs for theirs, _ in times),
        ours_per_s=sequences / statistics.median(own for _, own in times),
        ratio_median=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        largest_difference=float((expected - got).abs().max()),
        spread=float(expected.std(0).mean()),
    )


def _seconds(encode: Callable[[list[TokenizedHistory]], Tensor], batches: Batches) -> float:
    start = time.perf_counter()
    for batch in batches:
        encode(batch).cpu()  # waits for a GPU too
    return time.perf_counter() - start


class Others:
    """How much processor time other processes took since this was made."""

    def __init__(self) -> None:
        self.load = os.getloadavg()[0]
        self._start, self._busy, self._own = time.perf_counter(), *self._seconds()

    @staticmethod
    def _seconds() -> tuple[float, float]:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        return machine.user + machine.system, own.user + own.system

    def cores(self) -> float:
        busy, own = self._seconds()
        taken = (busy - self._busy) - (own - self._own)
        return float(max(0.0, taken / (time.perf_counter() - self._start)))


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    item_text, batches = read_batches(args)
    config = RecformerConfig(
        vocab_size=item_text.vocab_size,
        hidden_size=args.hidden,
        num_layers=args.layers,
        num_heads=args.hidden // args.head_dim,
        intermediate_size=4 * args.hidden,
        mask_id=3,
    )
    authors = AuthorsRecformer(config).eval()
    ours = Recformer(config, item_text).eval()
    ours.load_state_dict(convert_weights(authors.named_weights(), config.num_layers, lm_head=False))
    authors.to(args.device)
    ours.to(args.device)
    others = Others()
    with torch.inference_mode():
        results = [compare(what, part, authors, ours, args.rounds) for what, part in batches.items()]
    cores = others.cores()

    print(f"\n{config.num_layers} layers x {config.hidden_size}, {config.num_heads} heads of {args.head_dim}, ", end="")
    print(f"window {config.attention_window}, float32, {args.device}, {args.threads} threads; {args.items.parent.name}")
    print(f"{'':<10} {'real':>7} {'padded':>7} {'authors':>9} {'ours':>9} {'ratio':>6}  {'min - max':<13} {'apart':>7}")
    print(f"{'':<10} {'tokens':>7} {'/real':>7} {'/s':>9} {'/s':>9}")
    for r in results:
        spread = f"{r.ratio_min:.2f} - {r.ratio_max:.2f}"
        print(f"{r.what:<10} {r.tokens / r.sequences:>7.1f} {r.padded_tokens / r.tokens:>7.2f} ", end="")
        print(f"{r.authors_per_s:>9.1f} {r.ours_per_s:>9.1f} {r.ratio_median:>6.2f}  {spread:<13} ", end="")
        print(f"{r.largest_difference:>7.0e}")
    if cores > BUSY:  # not the load average: it tells of the minute before, too
        print(
            f"\nWARNING: the machine was busy (other processes took {cores:.2f} cores during the run): do not trust "
            "these numbers, however close together they are.",
            file=sys.stderr,
        )
    if args.json:
        record = _settings(args, config) | {"load_at_start": others.load, "cores_taken_by_others": cores}
        record["results"] = [asdict(result) for result in results]
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if max(result.largest_difference for result in results) > TOLERANCE:
        sys.exit(f"the two do not compute the same: vectors are more than {TOLERANCE} apart")


def _settings(args: argparse.Namespace, config: RecformerConfig) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    return {
        "benchmark": "encode",
        "data": args.items.parent.name,
        "attributes": args.attributes,
        "tokenizer": "trained on the items" if args.tokenizer is None else args.tokenizer.name,
        "model": asdict(config),
        "batch": {"items": ITEM_BATCH, "histories": HISTORY_BATCH},
        "rounds": args.rounds,
        "seed": args.seed,
        "device": device,
        "threads": args.threads,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encode", description="Our packed Recformer against the authors' formulation."
    )
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz", help="JSON Lines")
    parser.add_argument("--interactions", type=Path, default=DATA / "interactions.csv.gz", help="CSV or Parquet")
    parser.add_argument("--attributes", default="title,brand,category", help="which are text, in this order")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--head-dim", type=int, default=32, help="32 as in MiniLM of this size; 64 is Longformer's")
    parser.add_argument("--vocab-size", type=int, default=4000, help="of the byte-level BPE trained on the items")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="instead of one trained on the items")
    parser.add_argument("--sample-items", type=int, default=320)
    parser.add_argument("--sample-histories", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    args = parser.parse_args(argv)
    if args.hidden % args.head_dim:
        parser.error(f"--hidden {args.hidden} is not a multiple of --head-dim {args.head_dim}")
    return args


if __name__ == "__main__":
    main()
