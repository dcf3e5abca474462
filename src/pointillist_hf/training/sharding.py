# SPDX-License-Identifier: Apache-2.0
"""Weights that FSDP2 has shared out among the processes, and how to see them whole.

All functions leave what is not sharded alone. Those that see something whole must be called by all
processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor


def refuse_deepspeed() -> None:
    """Refuses a launch by DeepSpeed, whose steps would weigh tokens otherwise than the loop does.

    It steps within the backward pass: the loop could neither divide by the number of tokens of the
    global batch nor clip.

    Raises:
        ValueError: The launcher was told to use DeepSpeed.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ValueError(
            "`distributed_type` must not be DEEPSPEED: it steps before the tokens of the global "
            "batch are counted. configs/accelerate/eight_gpus_zero2.yaml shares out as much, by "
            "FSDP2."
        )


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
