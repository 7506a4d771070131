"""Data-parallel training: collectives with gradients, and the model under DDP or FSDP.

Processes are started by torchrun or `accelerate launch`. Every process computes the loss of the whole batch; only the
encoding, which dominates the cost, is split: each process encodes its share of the sequences, and `gather` returns the
vectors of all processes to each of them, with gradients. DDP and FSDP average gradients over processes; the backward
passes here are scaled so that this average equals the gradient that one process with the whole batch computes.

DDP comes from accelerate. Sharding calls torch's `fully_shard` directly: accelerate calls it on GPUs only, and this way
the same code is tested on CPUs.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from seqrec.models.base.model import SequenceModel
from seqrec.runtime.threads import Threads, choose, use

Result = TypeVar("Result")

COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""Long, because all other processes wait while rank 0 validates and writes checkpoints."""
_WHOLE = StateDictOptions(full_state_dict=True)


def processes() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The rank of this process. Rank 0 writes logs and files."""
    return dist.get_rank() if processes() > 1 else 0


def share(count: int) -> slice:
    """The slice of `count` rows that this process computes. The slices of all ranks, in order, cover all rows."""
    each, more = divmod(count, processes())
    begin = rank() * each + min(rank(), more)
    return slice(begin, begin + each + (rank() < more))


def gather(rows: Tensor, count: int) -> Tensor:
    """rows [share(count), d] of this process -> [count, d] of all processes, with gradients to its own rows.

    Every process must compute the same function of the result.
    """
    if processes() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows, count)  # type: ignore[no-untyped-call]
    return gathered


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum over all processes, with gradients. Every process must compute the same function of it."""
    if processes() == 1:
        return value
    summed: Tensor = _AllReduceSum.apply(value)  # type: ignore[no-untyped-call]
    return summed


def all_gather_floats(values: list[float], device: torch.device) -> list[list[float]]:
    """The numbers of every process, by rank."""
    if processes() == 1:
        return [values]
    own = torch.tensor(values, dtype=torch.float64, device=device)
    gathered = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(gathered, own)
    return [numbers.tolist() for numbers in gathered]


def all_gather_objects(value: Any) -> list[Any]:
    """One object of every process, by rank."""
    if processes() == 1:
        return [value]
    gathered: list[Any] = [None] * processes()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_from_rank0(compute: Callable[[], Result]) -> Result:
    """Runs `compute` on rank 0 and returns its result on every process; the others wait."""
    if processes() == 1:
        return compute()
    box: list[Any] = [compute() if rank() == 0 else None]
    dist.broadcast_object_list(box)
    result: Result = box[0]
    return result


def barrier() -> None:
    """Waits until every process has reached this point."""
    if processes() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, count: int) -> Tensor:
        ctx.share = share(count)
        most = -(-count // processes())  # all_gather needs equal shapes
        padded = torch.zeros(most, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(processes())]
        dist.all_gather(parts, padded)
        each, more = divmod(count, processes())
        return torch.cat([part[: each + (number < more)] for number, part in enumerate(parts)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.share] * processes(), None


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * processes()


def join_processes(device: str) -> str:
    """Initializes the process group if torchrun or `accelerate launch` started several processes.

    `device`: 'cpu', 'cuda', or '' for a GPU if there is one. Returns it unchanged for a single process, otherwise the
    device of this rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    from accelerate import PartialState

    cpu = device == "cpu" or not torch.cuda.is_available()
    own = PartialState(cpu=cpu, timeout=COLLECTIVE_TIMEOUT).device
    return "cpu" if cpu else str(own)


def leave_processes() -> None:
    """Destroys the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class ParallelModel:
    """The model in training, wrapped for DDP or FSDP when there are several processes.

    `whole`: the model to encode with, which is the trained one, or an unsharded copy that `refresh` updates. Every
    method except `run` and `clip` is a collective call: all processes make it together.
    """

    def __init__(self, model: SequenceModel, sharded: bool = False) -> None:
        self.whole: SequenceModel = model
        self.sharded = sharded and processes() > 1
        trained = copy.deepcopy(model) if self.sharded else model
        self.module: nn.Module = _Call(trained)
        if self.sharded:
            _shard(self.module)
        elif processes() > 1:
            from accelerate import Accelerator
            from accelerate.utils import DistributedDataParallelKwargs

            # Recformer's last layer has weights without gradients, and some stages leave out others.
            unused = DistributedDataParallelKwargs(find_unused_parameters=True)
            device = next(trained.parameters()).device
            accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[unused])
            self.module = accelerator.prepare_model(self.module)
        self.trained = trained

    def run(self, work: Callable[[SequenceModel], Result]) -> Result:
        """Calls `work` with the model inside one forward pass, so that DDP or FSDP synchronizes the gradients."""
        result: Result = self.module(work)
        return result

    def clip(self, norm: float) -> None:
        nn.utils.clip_grad_norm_(self.trained.parameters(), norm)

    def refresh(self) -> None:
        if self.sharded:
            self.whole.load_state_dict(self.weights())

    def weights(self) -> dict[str, Tensor]:
        """A copy of all weights, on the CPU, on every process."""
        state: Mapping[str, Any] = self.trained.state_dict()
        if self.sharded:
            state = get_model_state_dict(self.trained, options=_WHOLE)
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.whole.load_state_dict(weights)
        if self.sharded:
            set_model_state_dict(self.trained, dict(weights), options=_WHOLE)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        if not self.sharded:
            return optimizer.state_dict()
        state: dict[str, Any] = get_optimizer_state_dict(self.trained, optimizer, options=_WHOLE)
        return state

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        if not self.sharded:
            optimizer.load_state_dict(state)
        else:
            # Not strict: weights that no loss has used yet have no optimizer state.
            options = StateDictOptions(full_state_dict=True, strict=False)
            set_optimizer_state_dict(self.trained, optimizer, state, options=options)


class _Call(nn.Module):
    """A module whose forward pass is a callable argument: DDP and FSDP hook into one forward pass per step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[nn.Module], Any]) -> Any:
        return work(self.model)


def _shard(module: nn.Module) -> None:
    """Each layer's weights are gathered while it computes; weights outside of layers for the whole pass."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(module.parameters()).device.type, (processes(),))
    for layers in [part for part in module.modules() if isinstance(part, nn.ModuleList)]:
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def is_sharded(setting: str) -> bool:
    """Whether weights are sharded: the setting `sharding`, or `accelerate launch --use_fsdp`."""
    return setting == "full" or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def set_threads(threads: int) -> Threads:
    """Sets the number of CPU threads of this process and returns it.

    0: OMP_NUM_THREADS, or one per physical core, shared with the host's other ranks.
    """
    chosen = choose(threads, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    use(chosen)
    return chosen
