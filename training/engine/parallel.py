"""The model as all processes train it: one copy each (DDP), or a share of the weights each (FSDP).

DDP is accelerate's. Sharding is torch's `fully_shard` itself, which accelerate calls as well, but on GPUs only; so the
same code is tested on CPUs.
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
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from seqrec.models.base.model import SequenceModel
from training.engine.distributed import processes

Result = TypeVar("Result")

PATIENCE = timedelta(hours=2)
"""How long processes wait for one another: one of them validates and writes for all."""
_WHOLE = StateDictOptions(full_state_dict=True)


def join_processes(device: str) -> str:
    """Meet the other processes, if torchrun or `accelerate launch` started several.

    `device`: 'cpu', 'cuda' or '' for a GPU where there is one; -> the same, or with several processes this one's own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    from accelerate import PartialState

    cpu = device == "cpu" or not torch.cuda.is_available()
    own = PartialState(cpu=cpu, timeout=PATIENCE).device
    return "cpu" if cpu else str(own)


def leave_processes() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class ParallelModel:
    """`whole` is the model to encode with: the one in training, or where that is sharded, a copy that `refresh` fills.

    Everything here but `run` and `clip` in one process is done by all processes together.
    """

    def __init__(self, model: SequenceModel, sharded: bool = False) -> None:
        assert isinstance(model, nn.Module)
        self.whole: SequenceModel = model
        self.sharded = sharded and processes() > 1
        trained = copy.deepcopy(model) if self.sharded else model
        self.module: nn.Module = _Call(trained)
        if self.sharded:
            _shard(self.module)
        elif processes() > 1:
            from accelerate import Accelerator
            from accelerate.utils import DistributedDataParallelKwargs

            # Recformer's last layer has weights that nothing reads, and stages may leave others out.
            unused = DistributedDataParallelKwargs(find_unused_parameters=True)
            device = next(trained.parameters()).device
            accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[unused])
            self.module = accelerator.prepare_model(self.module)
        self.trained = trained

    def run(self, work: Callable[[SequenceModel], Result]) -> Result:
        """Call `work` with the model such that the gradients of what it returns are those of all processes."""
        result: Result = self.module(work)
        return result

    def clip(self, norm: float) -> None:
        nn.utils.clip_grad_norm_(self.trained.parameters(), norm)

    def refresh(self) -> None:
        if self.sharded:
            assert isinstance(self.whole, nn.Module)
            self.whole.load_state_dict(self.weights())

    def weights(self) -> dict[str, Tensor]:
        """A copy of all weights, on the CPU of every process."""
        state: Mapping[str, Any] = self.trained.state_dict()
        if self.sharded:
            state = get_model_state_dict(self.trained, options=_WHOLE)
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        assert isinstance(self.whole, nn.Module)
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
            # Not strict: a weight that no loss has read yet has no state.
            options = StateDictOptions(full_state_dict=True, strict=False)
            set_optimizer_state_dict(self.trained, optimizer, state, options=options)


class _Call(nn.Module):
    """Its forward pass is whatever is handed in: DDP and FSDP do their work around one forward pass a step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[nn.Module], Any]) -> Any:
        return work(self.model)


def _shard(module: nn.Module) -> None:
    """Each layer's weights are gathered when it computes, those of no layer for the whole pass."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(module.parameters()).device.type, (processes(),))
    for layers in [part for part in module.modules() if isinstance(part, nn.ModuleList)]:
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def is_sharded(setting: str) -> bool:
    """Whether weights are sharded: the setting `sharding`, or what `accelerate launch --use_fsdp` says."""
    return setting == "full" or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
