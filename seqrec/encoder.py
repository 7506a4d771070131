"""The public Python API: a loaded model that encodes items and histories.

from seqrec import load_model
model = load_model("var/demo/checkpoint")
model.encode_items([{"title": "Oak desk"}])                    # float32 [1, dim]
model.encode_histories([[{"title": "Oak desk"}], []])          # float32 [2, dim]
"""

from __future__ import annotations

import logging
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
from seqrec.models.base.model import Batch, CudaGraphs, SequenceModel
from seqrec.runtime.quantization import PackedLinear, has_fast_int8, pack_weights, quantize
from seqrec.runtime.thread_pool import map_single_core
from seqrec.text.item_text import ItemTokens, TokenizedHistory, TokenizedItem

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "int8"]
"""bfloat16 is faster on a GPU; int8, of linear layers, on a CPU."""
Vectors = npt.NDArray[np.float32]
ItemLike = Item | Mapping[str, Any]
"""An Item, or only its attributes."""

TOKEN_BUDGET = {"cpu": 1024, "cuda": 65536}
"""Tokens of a batch: enough to keep a GPU or a core busy, few enough to stay in the caches."""
MIN_SPLIT_TOKENS = 256
"""From this many tokens on, each core of a CPU computes batches of its own; below, all cores share each operation."""


def fast_precision(precision: Precision) -> Precision:
    """The precision, or float32 for int8 on a processor where that is not faster."""
    return "float32" if precision == "int8" and not has_fast_int8() else precision


def load_model(path: str | Path, device: str | None = None, precision: Precision = "float32") -> Encoder:
    """Loads a checkpoint for encoding. `device` None: a GPU if there is one.

    Raises CheckpointError for a damaged checkpoint, InputError for an unknown device or precision.
    """
    return Encoder(load_checkpoint(path), device, precision).optimize_for_cpu()


class Encoder:
    """Item and history vectors of one checkpoint, in float32; unit vectors where the metric is cosine.

    Inputs are sorted by length and batched by a token budget; results are in the order of the inputs. A row does not
    depend on the rest of its batch (within 1e-5). On a CPU it is thread-safe.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | None = None, precision: Precision = "float32") -> None:
        if precision not in get_args(Precision):
            raise InputError(f"no precision {precision!r}; use one of {', '.join(get_args(Precision))}", "precision")
        self.device = _device("cpu" if device is None and precision == "int8" else device)
        if precision == "int8" and self.device.type != "cpu":
            raise InputError("int8 runs on the CPU only; use bfloat16 on a GPU", "precision")
        if precision == "int8" and not has_fast_int8():
            log.warning("this processor has no VNNI instructions, so int8 is not faster here; use float32")
        self.precision: Precision = precision
        self.checkpoint = checkpoint
        self.item_tower = checkpoint.item_tower if precision == "float32" else f"{checkpoint.item_tower}-{precision}"
        """Identifies everything that determines item vectors, including rounding: equal names mean equal vectors."""
        self.metric: Metric = checkpoint.item_model.metric
        self.dim: int = checkpoint.item_model.dim
        self.cold_items: bool = checkpoint.item_model.cold_items
        self.token_budget = TOKEN_BUDGET[self.device.type]
        self._cuda_graphs: dict[int, CudaGraphs] = {}  # by the id() of the model
        for model in self._models():
            if precision == "int8":
                quantize(model)
            model.eval().to(self.device)

    def _models(self) -> set[SequenceModel]:
        """The two towers, or the one that both are."""
        return {self.checkpoint.item_model, self.checkpoint.history_model}

    @property
    def bytes(self) -> int:
        """Memory of the weights, packed ones included; those that two towers share count once."""
        tensors = {tensor for model in self._models() for tensor in (*model.parameters(), *model.buffers())}
        packed = {m.packed for model in self._models() for m in model.modules() if isinstance(m, PackedLinear)}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors | packed)

    def optimize_for_cpu(self) -> Self:
        """Packs the weights for float32 on a CPU, elsewhere does nothing. The weights must not change afterwards."""
        if self.device.type == "cpu" and self.precision == "float32":
            for model in self._models():
                pack_weights(model)
        return self

    def compile_cuda_graphs(self) -> Self:
        """Compiles the models for all batch sizes on a GPU, which takes minutes; elsewhere does nothing."""
        if self.device.type == "cuda":
            for model in self._models():
                if graphs := model.compile_cuda_graphs(self.precision == "bfloat16"):
                    self._cuda_graphs[id(model)] = graphs
        return self

    def tokenize_items(self, items: Sequence[ItemLike]) -> ItemTokens:
        """Token ids of each item, to be stored. Raises InputError for invalid attributes."""
        checked = [
            item if isinstance(item, Item) else check_attributes(item, f"items[{row}]")
            for row, item in enumerate(items)
        ]
        return self.checkpoint.item_model.tokenize_items(checked)

    def encode_items(self, items: Sequence[ItemLike]) -> Vectors:
        """-> float32 [n, dim]: the vectors of the index."""
        return self.encode_item_tokens(self.tokenize_items(items))

    def encode_histories(self, histories: Sequence[History | Sequence[ItemLike]]) -> Vectors:
        """-> float32 [b, dim]: query vectors. Items are oldest first; a history may be empty."""
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
        if not self.has_dense:
            progress(len(histories))
            return np.zeros((len(histories), self.dim), np.float32)
        model = self.checkpoint.history_model
        costs = [model.history_tokens(history) for history in histories]
        return self._run(model, histories, costs, model.prepare_histories, model.encode_histories, progress)

    @property
    def hybrid(self) -> HybridSettings | None:
        """The weights of words and co-occurrence in the score; None: the score is that of the dense vectors alone."""
        return self.checkpoint.item_model.hybrid

    @property
    def has_dense(self) -> bool:
        """Whether history vectors carry information: those of a hybrid without a dense model are 0."""
        return self.hybrid is None or self.hybrid.dense > 0

    def term_vectors(self, items: Sequence[TokenizedItem]) -> csr_array:
        """float32 [n, terms]: the sparse vectors of items, if the model is a hybrid."""
        return self.checkpoint.item_model.term_vectors(items)

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
            # Both are thread-local, so they are set here, in the threads of `map_single_core`.
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, self.precision == "bfloat16"):
                batch = prepare([inputs[row] for row in rows])
                graphs = self._cuda_graphs.get(id(model))
                vectors = None if graphs is None else graphs.encode(batch)
                out[rows] = self._finish(encode(batch.to(self.device)) if vectors is None else vectors)

        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        if threads > 1 and len(inputs) > 1 and sum(costs) > MIN_SPLIT_TOKENS:
            done = map_single_core(compute, equal_batches(costs, self.token_budget, threads), threads)
        else:
            done = _run_serially(compute, budget_batches(costs, self.token_budget))
        for rows in done:
            progress(len(rows))
        return out

    def _finish(self, vectors: Tensor) -> Vectors:
        vectors = vectors.float()
        if self.metric is Metric.COSINE:
            vectors = nn.functional.normalize(vectors, dim=1)
        result: Vectors = vectors.cpu().numpy()
        return result


def _run_serially(compute: Callable[[list[int]], object], batches: Sequence[list[int]]) -> Iterator[list[int]]:
    for rows in batches:
        compute(rows)
        yield rows


def budget_batches(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Rows by ascending cost, in batches of at most `budget`; a row above the budget is a batch of its own."""
    batches: list[list[int]] = []
    total = budget + 1
    for row in np.argsort(np.asarray(costs), kind="stable").tolist():
        if total + costs[row] > budget:
            batches.append([])
            total = 0
        batches[-1].append(row)
        total += costs[row]
    return batches


def equal_batches(costs: Sequence[int], budget: int, threads: int) -> list[list[int]]:
    """Rows by descending cost, in batches of nearly equal cost, the same number for each thread.

    Their mean cost is at most `budget`. All threads end at about the same time.
    """
    order = np.argsort(-np.asarray(costs), kind="stable")
    sizes = np.asarray(costs)[order]
    total = int(sizes.sum())
    count = threads * -(-total // (budget * threads))
    # By the middle of a row: a row across a boundary goes to the batch that contains more of it.
    batch_of = (2 * np.cumsum(sizes) - sizes) * count // (2 * total)
    return [order[batch_of == one].tolist() for one in np.unique(batch_of)]


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"no device {name!r}; use cpu or cuda", "device") from None
    if device.type not in TOKEN_BUDGET:
        raise InputError(f"device {name!r} is not supported; use cpu or cuda", "device")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no CUDA device; use cpu", "device")
    return device
