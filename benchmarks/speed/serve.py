"""Load on the service over HTTP, compared with the same encoder and search in a bare loop, and with an alternative.

    seqrec bench serve                                  # a random model of 6 x 384 on online-retail; 20 minutes
    seqrec bench serve --items S/items.jsonl.gz --interactions S/interactions.csv.gz --json serve.json

Requests are histories of real users, by item id. Reported are:

- requests/s at saturation, compared with the bare loop
- latency percentiles by offered load (open loop: requests are sent when due, whether or not earlier ones are answered),
  compared with the longest request alone
- requests/s if 80 % repeat an unchanged history
- items/s posted in bulk, compared with encoding alone

If sentence-transformers is installed (benchmarks/README.md), the same load is put on FastAPI with its `encode` and
faiss's search, and a model of the same size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tools.http_load import Answers, closed_loop, open_loop
from benchmarks.tools.report import Line, Report, Spread, add_output, log
from benchmarks.tools.service_process import Service, environment, seqrec
from index.snapshot.snapshot import SnapshotStore
from seqrec.checkpoint import load_checkpoint, save_checkpoint
from seqrec.data.items import Item, read_interactions, read_items
from seqrec.encoder import Encoder, load_model
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.model import Recformer
from seqrec.runtime.arguments import Parser
from seqrec.text.item_text import ItemText, Recipe, TokenizedHistory
from seqrec.text.tokenizer import CLS, MASK, train_bpe

DATA = Path(__file__).parents[2] / "data" / "online-retail"
K = 10
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
REPEATED = 0.8
ALTERNATIVE = "sentence-transformers behind FastAPI"


@dataclass(frozen=True)
class World:
    items: Sequence[Item]
    histories: Sequence[list[str]]  # item ids, oldest first


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    world = read_world(args)
    title = f"{args.layers} x {args.hidden}, {args.precision}, {args.threads} threads; {args.items.parent.name}"
    report = Report("serve", title, vars(args))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or make_model(Path(folder) / "checkpoint", world, args)
        ours(report, Path(folder), checkpoint, world, args)
        if not args.only_ours:
            alternative(report, Path(folder), checkpoint, world, args)
    report.finish(args.json, args.picture)


def read_world(args: argparse.Namespace) -> World:
    items = read_items(args.items)
    events = read_interactions(args.interactions, {item.item_id for item in items}, "skip")
    of_user: dict[str, list[str]] = {}
    for at in np.argsort(events.timestamps, kind="stable").tolist():
        of_user.setdefault(events.user_ids[at], []).append(events.item_ids[at])
    rng = np.random.default_rng(args.seed)
    histories = [ids[:-1] for ids in of_user.values() if len(ids) > 1]
    return World(items, [histories[at] for at in rng.permutation(len(histories)).tolist()])


def make_model(path: Path, world: World, args: argparse.Namespace) -> Path:
    """A Recformer of random weights, which is as fast as a trained one."""
    recipe = Recipe(tuple(args.attributes.split(",")))
    texts = (part for item in world.items for pair in recipe.texts(item.attributes) for part in pair)
    item_text = ItemText(recipe, train_bpe(texts, 4000))
    torch.manual_seed(args.seed)
    config = RecformerConfig(
        vocab_size=item_text.vocab_size,
        hidden_size=args.hidden,
        num_layers=args.layers,
        num_heads=args.hidden // 32,
        intermediate_size=4 * args.hidden,
        cls_id=item_text.token_id(CLS) or 0,
        mask_id=item_text.token_id(MASK) or 3,
    )
    save_checkpoint(path, "recformer", Recformer(config, item_text))
    return path


def ours(report: Report, folder: Path, checkpoint: Path, world: World, args: argparse.Namespace) -> None:
    home = folder / "home"
    items = folder / "items.jsonl"
    with items.open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"item_id": i.item_id, "attributes": dict(i.attributes)}) + "\n" for i in world.items
        )
    precision = ("--precision", args.precision)
    threads = {"threads": str(args.threads), "follow_seconds": "0.1"}
    log("building the index")
    seqrec(
        home,
        "index",
        "build",
        "--checkpoint",
        str(checkpoint),
        "--items",
        str(items),
        *precision,
        "--publish",
        **threads,
    )
    count = min(args.requests, len(world.histories) // 3)
    first, second, warm = (world.histories[at * count : (at + 1) * count] for at in range(3))
    bare_before = bare_loop(home, checkpoint, first, args)
    service = Service(home, folder / "service.log", deadline="60").start(**threads)
    try:
        found = measure(service.url, first, second, warm, args)
        found["posted items/s"] = post_items(service.url, world.items[: args.posted])
    finally:
        service.kill()
    bare = [bare_before, bare_loop(home, checkpoint, first, args)]
    encoded = bare_items(checkpoint, world.items[: args.posted], args)
    report.more["ours"] = found | {"bare histories/s": bare, "bare items/s": encoded}
    saturation, posted = found["saturation/s"], found["posted items/s"]
    loop = Spread.of(bare)
    ratio = Spread.of([saturation / one for one in bare])
    report.add(Line("bare", "encode + search loop", loop.median, "/s"))
    report.add(Line("bare", "items encoded", encoded, "/s"))
    report.add(Line("ours", f"saturation, {args.clients} clients", saturation, "/s", ratio, "the bare loop"))
    report.add(Line("ours", "POST /items", posted, "/s", Spread.of([posted / encoded]), "bare encoding"))
    _add_load(report, "ours", found)


def measure(
    url: str,
    first: Sequence[list[str]],
    second: Sequence[list[str]],
    warm: Sequence[list[str]],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """The load for both services. No history occurs twice in the parts without repeats."""

    def bodies(histories: Sequence[list[str]], salt: int = 0) -> list[bytes]:
        # Rotated: different histories of the same length, which no cache contains.
        turned = [ids[salt % len(ids) :] + ids[: salt % len(ids)] for ids in histories]
        return [json.dumps({"history": ids[-1000:], "k": K}).encode() for ids in turned]

    log("warming")
    closed_loop(url, "/recommend", bodies(warm[: 4 * args.clients], 1), args.clients)
    log("saturation")
    saturation = closed_loop(url, "/recommend", bodies(first), args.clients)
    longest = max(second, key=len)
    alone = [closed_loop(url, "/recommend", bodies([longest], salt), 1).seconds[0] for salt in range(1, 8)]
    loads = []
    for number, share in enumerate(SHARES):
        log(f"open loop at {share:.0%} of saturation")
        offered = share * saturation.per_s
        seconds = min(args.seconds, len(second) / offered)  # until the histories are used up
        one = open_loop(url, "/recommend", bodies(second, 10 + number), offered, seconds, seed=number)
        loads.append({"share": share} | _summary(one))
    log(f"{REPEATED:.0%} repeated")
    fresh = round(len(warm) * (1 - REPEATED))
    rng = np.random.default_rng(args.seed)
    often = bodies(warm[fresh:])
    closed_loop(url, "/recommend", often, args.clients)
    mixed = bodies(warm[:fresh], 5) + [often[at] for at in rng.integers(len(often), size=4 * fresh)]
    repeating = closed_loop(url, "/recommend", [mixed[at] for at in rng.permutation(len(mixed))], args.clients)
    return {
        "saturation/s": saturation.per_s,
        "saturation statuses": saturation.statuses,
        "longest alone, ms": 1000 * float(np.median(alone)),
        "loads": loads,
        "repeating/s": repeating.per_s,
    }


def _summary(answers: Answers) -> dict[str, Any]:
    percentiles = {f"p{percent}": 1000 * answers.percentile(percent) for percent in (50, 90, 99)}
    return {"per_s": answers.per_s, **percentiles, "statuses": answers.statuses, "client late ms": 1000 * answers.late}


def _add_load(report: Report, whose: str, found: dict[str, Any]) -> None:
    """Latencies are relative to the longest request alone."""
    repeating, saturation, alone = (found[name] for name in ("repeating/s", "saturation/s", "longest alone, ms"))
    again = Spread.of([repeating / saturation])
    report.add(Line(whose, f"{REPEATED:.0%} repeat a history", repeating, "/s", again, "cold saturation"))
    report.add(Line(whose, "longest request alone", alone, "ms"))
    for load in found["loads"]:
        refused = {status: count for status, count in load["statuses"].items() if status != 200}
        part = f"{whose}, {load['share']:.0%} of saturation offered" + (f", answered {refused}" if refused else "")
        report.add(Line(part, "answered", load["per_s"], "/s"))
        for name in ("p50", "p90", "p99"):
            report.add(Line(part, name, load[name], "ms", Spread.of([load[name] / alone]), "longest alone"))


def bare_loop(home: Path, checkpoint: Path, histories: Sequence[list[str]], args: argparse.Namespace) -> float:
    """Histories/s of encoding and searching in this process, in batches as large as the number of clients."""
    torch.set_num_threads(args.threads)
    store = SnapshotStore(home)
    snapshot, encoder = store.open(store.list()[-1]), load_model(checkpoint, "cpu", args.precision)
    rows = [[row for item_id in ids if (row := snapshot.row_of(item_id)) is not None] for ids in histories]
    tokens = [TokenizedHistory([snapshot.tokens[row] for row in of]) for of in rows]

    def run(part: Sequence[TokenizedHistory]) -> None:
        snapshot.index.search(encoder.encode_history_tokens(part), K)

    run(tokens[: args.clients])
    begin = time.perf_counter()
    for at in range(0, len(tokens), args.clients):
        run(tokens[at : at + args.clients])
    return len(tokens) / (time.perf_counter() - begin)


def bare_items(checkpoint: Path, items: Sequence[Item], args: argparse.Namespace) -> float:
    """Items/s of tokenising and encoding in this process."""
    encoder: Encoder = load_model(checkpoint, "cpu", args.precision)
    encoder.encode_items(items[:64])
    begin = time.perf_counter()
    encoder.encode_items(items)
    return len(items) / (time.perf_counter() - begin)


def post_items(url: str, items: Sequence[Item], at_once: int = 500) -> float:
    """Items/s. Each item has one word more than before, so all of them are encoded."""
    log("posting items")
    bodies = [
        json.dumps({"items": [_changed(item) for item in items[at : at + at_once]]}).encode()
        for at in range(0, len(items), at_once)
    ]
    answers = closed_loop(url, "/items", bodies, 2)
    if set(answers.statuses) != {200}:
        sys.exit(f"POST /items returned the statuses {dict(answers.statuses)}")
    return len(items) / answers.took


def _changed(item: Item) -> dict[str, Any]:
    name, value = next(iter(item.attributes.items()))
    return {"item_id": item.item_id, "attributes": {**item.attributes, name: f"{value} new"}}


def alternative(report: Report, folder: Path, checkpoint: Path, world: World, args: argparse.Namespace) -> None:
    """The same load on the alternative; without effect if sentence-transformers is not installed."""
    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        log("sentence-transformers is not installed and is left out")
        return
    from benchmarks.tools.formulations import sentence_transformer

    model = load_checkpoint(checkpoint).history_model
    assert isinstance(model, Recformer)
    assert model.item_text is not None
    recipe = model.item_text.recipe
    torch.manual_seed(args.seed)
    sentence_transformer(model.config, model.item_text, folder / "bert", 512).save(str(folder / "sentences"))
    texts = {i.item_id: " ".join(f"{n} {v}" for n, v in recipe.texts(i.attributes)) for i in world.items}
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    count = min(args.requests, len(world.histories) // 3)
    parts = [world.histories[at * count : (at + 1) * count] for at in range(3)]
    with _alternative_process(folder, args.threads) as url:
        found = measure(url, parts[0], parts[1], parts[2], args)
    report.more[ALTERNATIVE] = found
    report.add(Line(ALTERNATIVE, "saturation, at most 512 tokens", found["saturation/s"], "/s"))
    _add_load(report, ALTERNATIVE, found)
    mine, theirs = report.more["ours"]["saturation/s"], found["saturation/s"]
    report.add(Line("ours", "saturation", mine, "/s", Spread.of([mine / theirs]), ALTERNATIVE))


@contextmanager
def _alternative_process(folder: Path, threads: int) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.tools.alternative_service",
        str(folder / "sentences"),
        str(folder / "texts.json"),
    ]
    process = subprocess.Popen(
        command, env=environment(folder) | {"OMP_NUM_THREADS": str(threads)}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench serve", description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=Path, default=DATA / "items.jsonl.gz", help="JSON Lines")
    parser.add_argument("--interactions", type=Path, default=DATA / "interactions.csv.gz", help="CSV or Parquet")
    parser.add_argument("--checkpoint", type=Path, help="default: random weights of the size below")
    parser.add_argument(
        "--attributes", default="title,brand,category", help="attributes to read as text, in this order"
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384, help="a multiple of 32, the size of a head")
    parser.add_argument("--precision", choices=["float32", "int8"], default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the service and of the loop")
    parser.add_argument("--clients", type=int, default=32, help="at saturation")
    parser.add_argument("--requests", type=int, default=1200, help="distinct histories per part")
    parser.add_argument("--seconds", type=float, default=40.0, help="duration of each offered load")
    parser.add_argument("--posted", type=int, default=2000, help="items")
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
