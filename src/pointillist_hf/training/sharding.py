# SPDX-License-Identifier: Apache-2.0
"""Weights that FSDP2 has shared out among the processes, and how to see them whole.

All functions leave what is not sharded alone. Those that see something whole must be called by all
processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from .loop_config import LoopConfig


def set_up_deepspeed(accelerator: Accelerator, config: LoopConfig) -> None:
    """Gives DeepSpeed, if it was launched, its settings, before the model is prepared.

    Raises:
        ValueError: As `deepspeed_settings` does.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        plugin = accelerator.state.deepspeed_plugin
        settings = deepspeed_settings(config, plugin.zero_stage, accelerator.num_processes)
        plugin.deepspeed_config.update(settings)


def deepspeed_settings(config: LoopConfig, zero_stage: int, num_processes: int) -> dict:
    """What DeepSpeed must be told of a run, because it clips and steps within the backward pass.

    Weights stay in float32, and autocast alone rounds, as without it.

    Args:
        config: Of the run.
        zero_stage: As it was launched.
        num_processes: Likewise.

    Raises:
        ValueError: Weights would be shared out, or half precision is float16.
    """
    if zero_stage > 2:
        raise ValueError(
            f"`zero_stage` must be at most 2, got {zero_stage}. FSDP2 shares out weights too: "
            "configs/accelerate/eight_gpus_fsdp2.yaml."
        )
    if config.precision == "fp16":
        raise ValueError("`mixed_precision` must be 'no' or 'bf16' with DeepSpeed, got 'fp16'.")
    return {
        "train_micro_batch_size_per_gpu": config.batch_size // num_processes,
        "gradient_accumulation_steps": 1,  # the loop weighs the parts
        "gradient_clipping": config.max_grad_norm,
        "bf16": {"enabled": False},
        "torch_autocast": {
            "enabled": config.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],  # whose gradients would be rounded on their way
        },
    }


def keep_digits(accelerator: Accelerator) -> None:
    """Gathers weights as they are under FSDP2: half precision is left to autocast.

    Accelerate would round all weights to half precision, and with them embeddings, norms and what
    is summed over the layers, all of which autocast keeps in float32; and besides the inputs, the
    losses, and the gradients that processes add up. The price is twice the bytes for gathering, of
    which a layer's share is under way while the layer before it computes.
    """
    if accelerator.is_fsdp2:
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()


def whole(tensor: Tensor) -> Tensor:
    """A tensor with what other processes have of it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def copy_whole(target: Tensor, source: Tensor) -> None:
    """Puts a whole tensor into one that may be sharded; each process takes its part."""
    if isinstance(target, DTensor):
        source = distribute_tensor(
            source.to(target.device), target.device_mesh, target.placements, src_data_rank=None
        )
    target.copy_(source)


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Inside, the parts of the model can be called one by one, as if it were not sharded.

    Otherwise only the model as a whole can be called, because that is what gathers its weights.
    """
    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in modules:
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()


def gather_weights(model: nn.Module) -> None:
    """Gives every process the whole weights, for good: the model can be saved, not trained on."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                kept = nn.Parameter(whole(parameter.detach()), parameter.requires_grad)
                module.register_parameter(name, kept)
