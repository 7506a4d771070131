"""Training throughput in tokens per second: our packed Recformer compared with the authors' formulation.

A step is one of fine-tuning: histories of real lengths are encoded, their [CLS] vectors are compared with fixed vectors
of the whole catalogue (cosine / temperature, cross entropy), then follow gradients, clipping of their norm, and AdamW.
The authors' side is Hugging Face's Longformer on padded batches, with the same weights, batches and optimizer. Neither
has dropout: losses and gradients are compared first, to show that both compute the same function. Only real tokens are
counted, on both sides.

seqrec bench train --help
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed.encode import HISTORY_BATCH, World, add_world, config_of, parse_world, read_world
from benchmarks.tools.formulations import AuthorsRecformer
from benchmarks.tools.report import Report, add_output
from benchmarks.tools.turns import take_turns
from seqrec.models.recformer.config import RecformerConfig
from seqrec.models.recformer.model import Recformer
from seqrec.models.recformer.weights import convert_weights
from seqrec.runtime.arguments import Parser
from seqrec.text.item_text import TokenizedHistory
from training.config.schema import OptimizerConfig
from training.engine.loop import adamw
from training.stages.encoding import Encoding

TEMPERATURE = 0.05
OPTIMIZER = OptimizerConfig(learning_rate=1e-5)
TOLERANCE = 1e-4
"""Of the gradients' difference, as a share of their norm, and of the loss: what float32 rounding explains."""

Encode = Callable[[Sequence[TokenizedHistory]], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    histories: Sequence[TokenizedHistory]
    labels: Tensor  # int64 [b], rows of the catalogue


class Trainee:
    """A model, how it encodes, and its optimizer."""

    def __init__(self, model: nn.Module, encode: Encode, catalogue: Tensor) -> None:
        """`catalogue`: float32 [n, d] unit vectors."""
        # Evaluation mode is training mode without dropout.
        self.model, self.encode, self.catalogue = model.eval(), encode, catalogue
        self.optimizer = adamw(model, OPTIMIZER)

    def gradients(self, batch: Batch) -> float:
        """Leaves them in the parameters. -> the loss."""
        self.optimizer.zero_grad()
        queries = F.normalize(self.encode(batch.histories).float(), dim=1)  # [b, d]
        loss = F.cross_entropy(queries @ self.catalogue.T / TEMPERATURE, batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def step(self, batch: Batch) -> None:
        self.gradients(batch)
        nn.utils.clip_grad_norm_(self.model.parameters(), OPTIMIZER.clip_norm)
        self.optimizer.step()


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    world, device = read_world(args), torch.device(args.device)
    config = replace(config_of(args, world), dropout=0.0)
    batches = _batches(world, device)
    trainees = contestants(config, len(world.items), device)
    title = f"training, {config.num_layers} layers x {config.hidden_size}, batches of {HISTORY_BATCH} histories, "
    title += f"{args.device}, {args.threads} threads; {args.items.parent.name}"
    report = Report("train", title, vars(args) | {"model": asdict(config), "batch": HISTORY_BATCH})
    found = difference(trainees, batches[0])
    tokens = [
        min(config.max_token_num, 1 + sum(len(item.ids) for item in h.items)) for b in batches for h in b.histories
    ]
    padded = sum(_padded(config, batch) for batch in batches)
    average, waste = np.mean(tokens), padded / sum(tokens)
    report.notes += [
        f"{len(tokens)} histories of {average:.1f} tokens on average; padded over real {waste:.2f}",
        f"before the first step, ours float32 and authors': losses {found['loss']:.1g} apart (relative), "
        f"gradients {found['gradients']:.1g}",
    ]
    report.more["alike"] = found

    def run(trainee: Trainee) -> None:
        for batch in batches:
            trainee.step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()

    turns = take_turns("steps", {name: partial(run, one) for name, one in trainees.items()}, args.rounds)
    report.add_turns("training", turns, sum(tokens), "tokens/s")
    report.finish(args.json, args.picture)
    if max(found.values()) > TOLERANCE:
        sys.exit(f"our losses or gradients differ from the authors' by more than {TOLERANCE}")


def contestants(config: RecformerConfig, items: int, device: torch.device) -> dict[str, Trainee]:
    """By name. All have the same weights and the same catalogue of random unit vectors [items, d]."""
    catalogue = F.normalize(torch.randn(items, config.hidden_size), dim=1).to(device)
    authors = AuthorsRecformer(config)
    ours = Recformer(config, None)
    ours.load_state_dict(convert_weights(authors.named_weights(), config.num_layers, lm_head=False))
    ours, authors = ours.to(device), authors.to(device)

    def packed(bfloat16: bool) -> Trainee:
        model, encoding = copy.deepcopy(ours), Encoding(bfloat16=bfloat16)
        return Trainee(model, lambda histories: encoding.histories(model, histories, device)[0], catalogue)

    def theirs(bfloat16: bool) -> Trainee:
        model = copy.deepcopy(authors)

        def encode(histories: Sequence[TokenizedHistory]) -> Tensor:
            with Encoding(bfloat16=bfloat16).autocast(device):
                vectors: Tensor = model(histories)
            return vectors

        return Trainee(model, encode, catalogue)

    found = {"authors": theirs(False)}
    if device.type == "cuda":  # on a CPU, bfloat16 does not speed up their formulation
        found["authors bfloat16"] = theirs(True)
    return found | {"ours float32": packed(False), "ours bfloat16": packed(True)}


def difference(trainees: Mapping[str, Trainee], batch: Batch) -> dict[str, float]:
    """Our float32 loss and gradients (as one vector) compared with the authors'; relative differences."""
    authors, ours = trainees["authors"], trainees["ours float32"]
    loss, own = authors.gradients(batch), ours.gradients(batch)
    model, mine = authors.model, ours.model
    assert isinstance(model, AuthorsRecformer)
    assert isinstance(mine, Recformer)
    with torch.no_grad():  # their gradients under our names, converted like weights
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        expected = convert_weights(model.named_weights(), mine.config.num_layers, lm_head=False)
        expected = {name: tensor.clone() for name, tensor in expected.items()}
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    got = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in mine.named_parameters()}
    apart = sum(float((got[name] - expected[name]).square().sum()) for name in got)
    size = sum(float(tensor.square().sum()) for tensor in expected.values())
    return {"loss": abs(own - loss) / abs(loss), "gradients": (apart / size) ** 0.5}


def _batches(world: World, device: torch.device) -> list[Batch]:
    """Histories in file order, each without its last item, which is the target."""
    rows = [of for of in world.histories if len(of) > 1]
    return [
        Batch(
            world.tokenized([of[:-1] for of in rows[at : at + HISTORY_BATCH]]),
            torch.tensor([of[-1] for of in rows[at : at + HISTORY_BATCH]], device=device),
        )
        for at in range(0, len(rows), HISTORY_BATCH)
    ]


def _padded(config: RecformerConfig, batch: Batch) -> int:
    """The tokens that the authors' side computes, with padding."""
    window = config.attention_window
    longest = max(1 + sum(len(item.ids) for item in history.items) for history in batch.histories)
    return -(-min(longest, config.max_token_num) // window) * window * len(batch.histories)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="seqrec bench train", description=__doc__.partition("\n")[0])
    add_world(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    add_output(parser)
    parser.set_defaults(sample_histories=32)
    return parse_world(parser, argv)


if __name__ == "__main__":
    main()
