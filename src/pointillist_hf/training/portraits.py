# SPDX-License-Identifier: Apache-2.0
"""Portraits of a data set as pixel values, with the variation that photographs bring."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..models.image_processing_portrait import PortraitImageProcessor


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """Independent draws. [count]"""
    return low + (high - low) * torch.rand(count, generator=generator)


def portrait_pixels(
    images: Tensor,
    processor: PortraitImageProcessor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pixel values of framed portraits.

    Args:
        images: sRGB with straight alpha. [B, H, W, 4] in [0, 1]
        processor: Whose size, background and normalisation are used.
        generator: Moves, zooms and brightens each portrait a little; None leaves them as they are.

    Returns:
        [B, 3, size, size]
    """
    count = len(images)
    color, alpha = images[..., :3], images[..., 3:]
    if generator is not None:
        color = (color * uniform(0.9, 1.1, count, generator)[:, None, None, None]).clamp(0, 1)
    backdrop = torch.tensor(processor.background)
    pixels = (color * alpha + backdrop * (1 - alpha)).permute(0, 3, 1, 2)
    zoom, shift = torch.ones(count), torch.zeros(count, 2)
    if generator is not None:
        zoom = uniform(0.92, 1.1, count, generator)
        shift = uniform(-0.06, 0.06, 2 * count, generator).view(count, 2)
    axis = (torch.arange(processor.size) + 0.5) / processor.size * 2 - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    grid = grid * zoom[:, None, None, None] + shift[:, None, None]
    framed = grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
    return (framed - mean[:, None, None]) / std[:, None, None]
