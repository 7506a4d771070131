"""Encoding throughput, in items and histories per second: our packed Recformer compared with common alternatives.

- `authors`: Hugging Face's LongformerModel with the four embeddings, as the Recformer authors use it. A batch is padded
  to its longest sequence, and then to a multiple of the attention window; the first token has global attention. It has
  the same weights as ours, and the vectors are compared, so both compute the same function.
- `dense`: a BERT of the same size with dense attention; a batch is padded to its longest sequence.
- `sentence-transformers`: the same BERT through its `encode`, which sorts by length; reads texts, at most 512 tokens on
  both sides. Left out if it is not installed (it needs a separate environment; see benchmarks/README.md).

`authors` and `dense` get batches of 32 items and 16 histories in their original order. All take turns in one process.

seqrec bench encode --help
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.tools.formulations import AuthorsRecformer, DenseBert, sentence_transformer
from benchmarks.tools.report import Report, add_output
from benchmarks.tools.turns import take_turns
from seqrec.checkpoint import Checkpoint
from seqrec.data.items import Item, read_interactions, read_items
from seqrec.encoder import Encoder, Precision, Vectors
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.model import Recformer
from seqrec.models.recformer.weights import convert_weights
from seqrec.runtime.arguments import Parser
from seqrec.text.item_text import ItemText, ItemTokens, Recipe, TokenizedHistory
from seqrec.text.tokenizer import read_tokenizer, train_bpe

DATA = Path(__file__).parents[2] / "data" / "online-retail"
ITEM_BATCH, HISTORY_BATCH = 32, 16
TEXT_TOKENS = 512
"""The limit of a history in the comparison with sentence-transformers."""
TOLERANCE = 2e-5
"""The largest difference between unit vectors that float32 rounding can cause in these models."""


@dataclass(frozen=True)
class World:
    """A sample of items and of users' histories (rows of items, oldest first)."""

    items: Sequence[Item]
    item_text: ItemText
    tokens: ItemTokens
    sampled: Sequence[list[int]]
    histories: Sequence[list[int]]

    def tokenized(self, rows: Sequence[list[int]]) -> list[TokenizedHistory]:
        return [TokenizedHistory([self.tokens[row] for row in of]) for of in rows]

    def texts(self, rows: Sequence[list[int]]) -> list[str]:
        """Newest first, as the encoder reads them."""
        recipe = self.item_text.recipe
        said = [" ".join(f"{name} {value}" for name, value in recipe.texts(item.attributes)) for item in self.items]
        return [" ".join(said[row] for row in reversed(of)) for of in rows]


def read_world(args: argparse.Namespace) -> World:
    items = read_items(args.items)
    recipe = Recipe(tuple(args.attributes.split(",")))
    texts = (part for item in items for pair in recipe.texts(item.attributes) for part in pair)
    tokenizer = train_bpe(texts, args.vocab_size) if args.tokenizer is None else read_tokenizer(args.tokenizer)
    item_text = ItemText(recipe, tokenizer)
    row_of = {item.item_id: row for row, item in enumerate(items)}
    events = read_interactions(args.interactions, row_of.keys(), "skip")
    rows_of_user: dict[str, list[int]] = {}
    for at in np.argsort(events.timestamps, kind="stable").tolist():
        rows_of_user.setdefault(events.user_ids[at], []).append(row_of[events.item_ids[at]])
    rng = np.random.default_rng(args.seed)

    def sample(rows: Sequence[list[int]], count: int) -> list[list[int]]:
        return [rows[at] for at in rng.choice(len(rows), min(count, len(rows)), replace=False).tolist()]

    return World(
        items,
        item_text,
        item_text.tokenize(items),
        sample([[row] for row in range(len(items))], args.sample_items),
        sample(list(rows_of_user.values()), args.sample_histories),
    )


class Contest:
    """The models to compare, all of the same size."""

    def __init__(self, world: World, config: RecformerConfig, device: str) -> None:
        self.world, self.config = world, config
        authors = AuthorsRecformer(config).eval()
        weights = convert_weights(authors.named_weights(), config.num_layers, lm_head=False)
        self.authors = authors.to(device)
        self.dense = DenseBert(config).eval().to(device)
        ours = Recformer(config, world.item_text).eval()
        ours.load_state_dict(weights)
        precisions: tuple[Precision, ...] = ("float32", "int8") if device == "cpu" else ("float32", "bfloat16")
        self.ours = {f"ours {name}": _encoder(copy.deepcopy(ours), device, name) for name in precisions}
        short = Recformer(replace(config, max_token_num=TEXT_TOKENS), world.item_text)
        short.load_state_dict(weights)
        self.short = {f"ours {name}": _encoder(copy.deepcopy(short), device, name) for name in precisions}

    def tokens(self, rows: Sequence[list[int]], batch: int) -> dict[str, Callable[[], Vectors]]:
        """Everything that starts from token ids: all but sentence-transformers."""
        histories = self.world.tokenized(rows)

        def padded(model: AuthorsRecformer | DenseBert) -> Vectors:
            parts = [model(histories[at : at + batch]) for at in range(0, len(histories), batch)]
            vectors: Vectors = F.normalize(torch.cat(parts), dim=1).cpu().numpy()
            return vectors

        ours = {name: lambda own=own: own.encode_history_tokens(histories) for name, own in self.ours.items()}
        return {"authors": lambda: padded(self.authors), "dense": lambda: padded(self.dense)} | ours

    def texts(self, rows: Sequence[list[int]], folder: Path) -> dict[str, Callable[[], Vectors]]:
        """Everything that starts from texts, at most 512 tokens. Raises ImportError."""
        theirs = sentence_transformer(self.config, self.world.item_text, folder, TEXT_TOKENS)
        texts = self.world.texts(rows)
        items = [[self.world.items[row] for row in of] for of in rows]

        def encode() -> Vectors:
            vectors: Vectors = theirs.encode(texts, batch_size=HISTORY_BATCH, normalize_embeddings=True)
            return vectors

        ours = {name: lambda own=own: own.encode_histories(items) for name, own in self.short.items()}
        return {"sentence-transformers": encode} | ours


def _encoder(model: Recformer, device: str, precision: Precision) -> Encoder:
    nowhere = Checkpoint(Path(), "recformer", "", "", "", "", "", history_model=model, item_model=model)
    return Encoder(nowhere, device, precision).optimize_for_cpu().compile_cuda_graphs()


def alike(vectors: Mapping[str, Vectors]) -> dict[str, float]:
    """The largest difference of our float32 vectors from the authors', and the least cosine of the others to ours."""
    exact = vectors["ours float32"]
    found = {"ours float32": float(np.abs(exact - vectors["authors"]).max())}
    for name in vectors.keys() - {"authors", "dense", "ours float32"}:
        found[name] = float((exact * vectors[name]).sum(1).min())
    return found


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    world = read_world(args)
    config = config_of(args, world)
    contest = Contest(world, config, args.device)
    title = f"{config.num_layers} layers x {config.hidden_size}, {config.num_heads} heads of {args.head_dim}, window "
    title += f"{config.attention_window}, {args.device}, {args.threads} threads; {args.items.parent.name}"
    batches = {"items": ITEM_BATCH, "histories": HISTORY_BATCH}
    report = Report("encode", title, vars(args) | {"model": asdict(config), "batch": batches})
    exact = {}
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        for part, rows in (("items", world.sampled), ("histories", world.histories)):
            contestants = contest.tokens(rows, batches[part])
            exact[part] = alike({name: run() for name, run in contestants.items()})
            report.add_turns(part, take_turns(part, contestants, args.rounds), len(rows), "/s")
            real = [
                min(config.max_token_num, 1 + sum(len(item.ids) for item in h.items)) for h in world.tokenized(rows)
            ]
            report.notes.append(f"{len(rows)} {part} of {np.mean(real):.1f} tokens on average")
        try:
            contestants = contest.texts(world.histories, Path(folder))
        except ImportError as error:
            print(f"sentence-transformers is left out: {error}", file=sys.stderr)
        else:
            part = f"histories from text, {TEXT_TOKENS} tokens"
            report.add_turns(part, take_turns(part, contestants, args.rounds), len(world.histories), "/s")
    for part, values in exact.items():
        for name, value in values.items():
            of = "largest difference from the authors'" if name == "ours float32" else "smallest cosine to float32"
            report.notes.append(f"{part}, {name}: {of} " + (f"{value:.2g}" if value < 0.1 else f"{value:.5f}"))
    report.more["alike"] = exact
    report.finish(args.json, args.picture)
    if max(of["ours float32"] for of in exact.values()) > TOLERANCE:
        sys.exit(f"our vectors differ from the authors' by more than {TOLERANCE}")


def config_of(args: argparse.Namespace, world: World) -> RecformerConfig:
    return RecformerConfig(
        vocab_size=world.item_text.vocab_size,
        hidden_size=args.hidden,
        num_layers=args.layers,
        num_heads=args.hidden // args.head_dim,
        intermediate_size=4 * args.hidden,
        mask_id=3,
    )


def add_world(parser: argparse.ArgumentParser) -> None:
    """Options of `read_world` and `config_of`."""
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz", help="JSON Lines")
    parser.add_argument("--interactions", type=Path, default=DATA / "interactions.csv.gz", help="CSV or Parquet")
    parser.add_argument(
        "--attributes", default="title,brand,category", help="attributes to read as text, in this order"
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384, help="a multiple of --head-dim")
    parser.add_argument("--head-dim", type=int, default=32, help="32 as in MiniLM of this size; Longformer has 64")
    parser.add_argument(
        "--vocab-size", type=int, default=4000, help="size of the byte-level BPE that is trained on the items"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="use this tokenizer instead of training one")
    parser.add_argument("--sample-items", type=int, default=320)
    parser.add_argument("--sample-histories", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)


def parse_world(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    args = parser.parse_args(argv)
    if args.hidden % args.head_dim:
        parser.error(f"--hidden {args.hidden} is not a multiple of --head-dim {args.head_dim}")
    return args


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench encode", description="Compare our packed Recformer with common alternatives.")
    add_world(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    add_output(parser)
    return parse_world(parser, argv)


if __name__ == "__main__":
    main()
