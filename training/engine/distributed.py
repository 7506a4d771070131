"""Several processes that train one model: started by torchrun or `accelerate launch`, held together by accelerate.

Every process computes the loss of the whole batch; what costs time, the encoding, is shared: each process encodes its
share of the sequences and `gather` gives all of them the vectors of all, with gradients. DDP and FSDP average the
gradients of the processes, and the backward passes here are scaled so that this average is exactly the gradient that
one process with the whole batch computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

Result = TypeVar("Result")


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is; 0 reports and writes."""
    return dist.get_rank() if processes() > 1 else 0


def share(count: int) -> slice:
    """Which of `count` rows this process computes; the shares of all, in the order of ranks, are all rows."""
    each, more = divmod(count, processes())
    begin = rank() * each + min(rank(), more)
    return slice(begin, begin + each + (rank() < more))


def gather(rows: Tensor, count: int) -> Tensor:
    """rows [share(count), d] of this process -> [count, d] of all processes, with gradients to the own rows.

    Whatever is computed from the result must be computed by every process alike.
    """
    if processes() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows, count)  # type: ignore[no-untyped-call]
    return gathered


def total(value: Tensor) -> Tensor:
    """The sum over all processes, with gradients; the same rule as for `gather` holds."""
    if processes() == 1:
        return value
    summed: Tensor = _Total.apply(value)  # type: ignore[no-untyped-call]
    return summed


def all_gather_floats(values: list[float], device: torch.device) -> list[list[float]]:
    """The numbers of every process, by rank, on every process."""
    if processes() == 1:
        return [values]
    own = torch.tensor(values, dtype=torch.float64, device=device)
    gathered = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(gathered, own)
    return [numbers.tolist() for numbers in gathered]


def objects_of_all(value: Any) -> list[Any]:
    """Something of every process, by rank, on every process."""
    if processes() == 1:
        return [value]
    gathered: list[Any] = [None] * processes()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_from_rank0(compute: Callable[[], Result]) -> Result:
    """What process 0 computes, on every process; the others wait."""
    if processes() == 1:
        return compute()
    box: list[Any] = [compute() if rank() == 0 else None]
    dist.broadcast_object_list(box)
    result: Result = box[0]
    return result


def meet() -> None:
    """Wait for all processes."""
    if processes() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, count: int) -> Tensor:
        ctx.share = share(count)
        most = -(-count // processes())  # collectives want equal shapes
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


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * processes()
