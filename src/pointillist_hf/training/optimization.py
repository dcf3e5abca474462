# SPDX-License-Identifier: Apache-2.0
"""The optimizer of a run and its learning rate over the steps."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from .loop_config import LoopConfig

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Linear warm-up, then constant, or a cosine down to `final_learning_rate`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    span = max(config.max_steps - config.warmup_steps, 1)
    progress = min((step - config.warmup_steps) / span, 1.0)
    low = config.final_learning_rate
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(
    model: nn.Module, config: LoopConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer of the weights that are trained, and its schedule."""
    optimizer = OPTIMIZERS[config.optimizer](
        [p for p in model.parameters() if p.requires_grad],
        lr=config.learning_rate,
        betas=(0.9, config.adam_beta2),
        weight_decay=config.weight_decay,
    )
    factor = partial(learning_rate_factor, config=config)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
