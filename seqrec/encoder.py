"""A loaded model that encodes items and histories: the public Python API.

from seqrec import load_model
model = load_model("var/demo/checkpoint")
model.encode_items([{"title": "Oak desk"}])                    # float32 [1, dim]
model.encode_histories([[{"title": "Oak desk"}], []])          # float32 [2, dim]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from seqrec.checkpoint import Checkpoint, load_checkpoint
from seqrec.data.items import History, Item, check_attributes
from seqrec.errors import InputError
from seqrec.hybrid.settings import HybridSettings
from seqrec.metric import Metric
from seqrec.models.base.model import Batch, SequenceModel
from seqrec.runtime.quantization import pack_weights, quantize
from seqrec.runtime.thread_pool import map_single_core
from seqrec.text.item_text import ItemTokens, TokenizedHistory, TokenizedItem

Precision = Literal["float32", "bfloat16", "int8"]
"""bfloat16 pays on a GPU, int8 (its linear layers) on a CPU."""
Vectors = npt.NDArray[np.float32]
ItemLike = Item | Mapping[str, Any]
"""An Item, or its attributes alone."""

TOKEN_BUDGET = {"cpu": 1024, "cuda": 65536}
"""Tokens a batch: enough to fill the machine (a core of it), little enough to stay in its caches."""
WORTH_SPLITTING = 256
"""Tokens from which on a CPU shares them out among its cores, rather than each operation on all of them."""


def load_model(path: str | Path, device: str | None = None, precision: Precision = "float32") -> Encoder:
    """Load a checkpoint to encode with. `device` None: a GPU where there is one.

    Raises CheckpointError if the checkpoint is not whole, InputError for a device or precision there is not.
    """
    return Encoder(load_checkpoint(path), device, precision).packed()


class Encoder:
    """Item and history vectors of one checkpoint, in float32; unit vectors where the metric is cosine.

    Batches are made by a token budget from inputs sorted by length; results come in the order of the inputs. A row
    does not depend on what else is in its batch (within 1e-5). On a CPU several threads may use it at once.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | None = None, precision: Precision = "float32") -> None:
        if precision not in get_args(Precision):
            raise InputError(f"no precision {precision!r}; there are {', '.join(get_args(Precision))}", "precision")
        self.device = _device("cpu" if device is None and precision == "int8" else device)
        if precision == "int8" and self.device.type != "cpu":
            raise InputError("int8 is for the CPU; say bfloat16 on a GPU", "precision")
        self.precision: Precision = precision
        self.checkpoint = checkpoint
        self.item_tower = checkpoint.item_tower if precision == "float32" else f"{checkpoint.item_tower}-{precision}"
        """Names everything that makes an item's vector, rounding included: equal names make equal vectors."""
        self.metric: Metric = checkpoint.item_model.metric
        self.dim: int = checkpoint.item_model.dim
        self.cold_items: bool = checkpoint.item_model.cold_items
        self.token_budget = TOKEN_BUDGET[self.device.type]
        self._recorded: dict[int, Any] = {}  # by the identity of the model
        for model in self._modules():
            if precision == "int8":
                quantize(model)
            model.eval().to(self.device)

    def _modules(self) -> Iterator[nn.Module]:
        """Its towers, each once."""
        for model in {self.checkpoint.item_model, self.checkpoint.history_model}:
            assert isinstance(model, nn.Module)
            yield model

    def packed(self) -> Self:
        """Itself, faster where that can be: from now on the weights are those of this moment."""
        if self.device.type == "cpu" and self.precision == "float32":
            for model in self._modules():
                pack_weights(model)
        return self

    def record(self) -> Self:
        """Itself, on a GPU compiled for all sizes of batches, which takes minutes: no request waits for it later."""
        if self.device.type == "cuda":
            from seqrec.models.recformer.cuda_graphs import recorded

            for model in self._modules():
                self._recorded[id(model)] = recorded(model, self.precision == "bfloat16")
        return self

    def tokenize_items(self, items: Sequence[ItemLike]) -> ItemTokens:
        """Token ids of each item: make them once, keep them. Raises InputError for attributes that are none."""
        checked = [
            item if isinstance(item, Item) else check_attributes(item, f"items[{row}]")
            for row, item in enumerate(items)
        ]
        return self.checkpoint.item_model.tokenize_items(checked)

    def encode_items(self, items: Sequence[ItemLike]) -> Vectors:
        """-> float32 [n, dim]: what the index holds."""
        return self.encode_item_tokens(self.tokenize_items(items))

    def encode_histories(self, histories: Sequence[History | Sequence[ItemLike]]) -> Vectors:
        """-> float32 [b, dim]: what queries the index. Items oldest first; an empty history is [CLS] alone."""
        users = [history.user_id if isinstance(history, History) else None for history in histories]
        entries = [history.items if isinstance(history, History) else history for history in histories]
        tokens = iter(self.tokenize_items([item for items in entries for item in items]))
        tokenized = [[next(tokens) for _ in items] for items in entries]
        return self.encode_history_tokens([TokenizedHistory(i, u) for i, u in zip(tokenized, users, strict=True)])

    def encode_item_tokens(
        self, items: Sequence[TokenizedItem], progress: Callable[[int], object] = lambda done: None
    ) -> Vectors:
        """-> float32 [n, dim]. `progress` is called with the number of items done since its last call."""
        model = self.checkpoint.item_model
        return self._run(
            model, items, [len(item.ids) + 1 for item in items], model.prepare_items, model.encode_items, progress
        )

    def encode_history_tokens(
        self, histories: Sequence[TokenizedHistory], progress: Callable[[int], object] = lambda done: None
    ) -> Vectors:
        """-> float32 [b, dim]. `progress` is called with the number of histories done since its last call."""
        model = self.checkpoint.history_model
        costs = [model.history_tokens(history) for history in histories]
        return self._run(model, histories, costs, model.prepare_histories, model.encode_histories, progress)

    @property
    def hybrid(self) -> HybridSettings | None:
        """How the score joins dense vectors, words and co-occurrence; None where it is the dense vectors' alone."""
        return getattr(self.checkpoint.item_model, "hybrid", None)

    def term_vectors(self, items: Sequence[TokenizedItem]) -> csr_array:
        """float32 [n, terms]: the sparse vectors of items, where the model is a hybrid."""
        vectors: csr_array = self.checkpoint.item_model.term_vectors(items)  # type: ignore[attr-defined]
        return vectors

    def _run(
        self,
        model: SequenceModel,
        inputs: Sequence[Any],
        costs: Sequence[int],
        prepare: Callable[[list[Any]], Batch],
        encode: Callable[[Batch], Tensor],
        progress: Callable[[int], object],
    ) -> Vectors:
        out = np.empty((len(inputs), self.dim), dtype=np.float32)

        def compute(rows: list[int]) -> None:
            # Both are a thread's own: they do not reach the threads of `map_single_core` from here.
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, self.precision == "bfloat16"):
                batch = prepare([inputs[row] for row in rows])
                recorded = self._recorded.get(id(model))
                vectors = None if recorded is None else recorded.encode(batch)
                out[rows] = self._finish(encode(batch.to(self.device)) if vectors is None else vectors)

        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        if threads > 1 and len(inputs) > 1 and sum(costs) > WORTH_SPLITTING:
            done = map_single_core(compute, _shares(costs, self.token_budget, threads), threads)
        else:
            done = _one_by_one(compute, _batches(costs, self.token_budget))
        for rows in done:
            progress(len(rows))
        return out

    def _finish(self, vectors: Tensor) -> Vectors:
        vectors = vectors.float()
        if self.metric is Metric.COSINE:
            vectors = nn.functional.normalize(vectors, dim=1)
        result: Vectors = vectors.cpu().numpy()
        return result


def _one_by_one(compute: Callable[[list[int]], object], batches: Sequence[list[int]]) -> Iterator[list[int]]:
    for rows in batches:
        compute(rows)
        yield rows


def _batches(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Rows by rising cost, cut where the sum of a batch passes the budget; a row over the budget goes alone."""
    batches: list[list[int]] = []
    total = budget + 1
    for row in np.argsort(np.asarray(costs), kind="stable").tolist():
        if total + costs[row] > budget:
            batches.append([])
            total = 0
        batches[-1].append(row)
        total += costs[row]
    return batches


def _shares(costs: Sequence[int], budget: int, threads: int) -> list[list[int]]:
    """Rows by falling cost in batches of the same cost, as near as whole rows allow, the same number for each thread.

    So many that they cost the budget or less, on average: no thread is left alone at the end.
    """
    order = np.argsort(-np.asarray(costs), kind="stable")
    sizes = np.asarray(costs)[order]
    total = int(sizes.sum())
    count = threads * -(-total // (budget * threads))
    # By the middle of a row, so that one that stands across a border goes where more of it lies.
    share = (2 * np.cumsum(sizes) - sizes) * count // (2 * total)
    return [order[share == one].tolist() for one in np.unique(share)]


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"no device {name!r}; say cpu or cuda", "device") from None
    if device.type not in TOKEN_BUDGET:
        raise InputError(f"device {name!r} is not supported; say cpu or cuda", "device")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device that torch can use; say cpu", "device")
    return device
