# SPDX-License-Identifier: Apache-2.0
"""From a portrait to the layout of its cloud.

A layout says how many points stand off the skin in each cell of a coarse grid, see
`rigs.cloud_layout`. Of some five thousand points of a cloud a beard has a hundred, so the next
token alone hardly teaches a network to look for it; one that has to foresee the layout looks. The
generator is told the layout, and is left with where the points are within it. Beyond the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .attention_blocks import CrossBlock

HEAD_SIZE = 64  # of the attention, or more


class LayoutReader(nn.Module):
    """Attention from the slices of a layout to the tokens of a portrait.

    Args:
        size: Cells along an edge of the cube.
        hidden_size: Width of the conditioning tokens.
        image_size: Width of the image encoder's tokens.
    """

    def __init__(self, size: int, hidden_size: int, image_size: int) -> None:
        super().__init__()
        num_heads = math.gcd(hidden_size, max(1, hidden_size // HEAD_SIZE))
        self.embed_slices = nn.Embedding(size, hidden_size)
        self.cross_blocks = nn.ModuleList(
            CrossBlock(hidden_size, num_heads, image_size) for _ in range(2)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, size**2)

    def forward(self, image_states: Tensor) -> Tensor:
        """Logarithms of the numbers that are expected. [B, M, image_size] -> [B, size, size^2]"""
        states = self.embed_slices.weight.expand(len(image_states), -1, -1)
        for block in self.cross_blocks:
            states = block(states, image_states)
        return self.head(self.norm(states))


def mix_layouts(log_rates: Tensor, layouts: Tensor, shares: Tensor) -> Tensor:
    """What a generator is told in training: the true layouts in part, else those foreseen.

    Args:
        log_rates: Of `LayoutReader`; nothing is learned through them. [B, L, L^2]
        layouts: The true ones. [B, L, L^2]
        shares: Of the true ones. [B]
    """
    shares = shares[:, None, None]
    return (1 - shares) * log_rates.detach().exp() + shares * layouts


def layout_losses(log_rates: Tensor, layouts: Tensor) -> Tensor:
    """Nats of true layouts if cells are filled at random, at these rates. [B, size, size^2] -> [B]

    Counts less what they would cost if they were known, so that a right guess costs about nothing
    in cells that are empty or full.
    """
    # In as many digits as there are, and in float32 under autocast.
    digits = torch.promote_types(log_rates.dtype, torch.float32)
    rates, layouts = log_rates.to(digits), layouts.to(digits)
    losses = rates.exp() - layouts * rates
    return (losses - (layouts - torch.xlogy(layouts, layouts))).sum((1, 2))
