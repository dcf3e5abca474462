# SPDX-License-Identifier: Apache-2.0
"""Portraits of a data set as pixel values, with the variation that photographs bring."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..portraits.image_processing_portrait import PortraitImageProcessor


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """Independent draws. [count]"""
    return low + (high - low) * torch.rand(count, generator=generator)


def vary_exposure(color: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, white balance and contrast as cameras choose them. [B, H, W, 3] in [0, 1]"""
    count = len(color)
    gain = uniform(0.85, 1.15, count, generator)[:, None]
    balance = uniform(0.95, 1.05, 3 * count, generator).view(count, 3)
    gamma = uniform(0.85, 1.15, count, generator)[:, None, None, None]
    return ((gain * balance)[:, None, None] * color).clamp(0, 1) ** gamma


def portrait_pixels(
    images: Tensor,
    processor: PortraitImageProcessor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pixel values of framed portraits.

    Args:
        images: sRGB with straight alpha. [B, H, W, 4] in [0, 1]
        processor: Whose size, background and normalisation are used.
        generator: Varies exposure, white balance, contrast, place and zoom of each portrait; None
            leaves them as they are.

    Returns:
        [B, 3, size, size]
    """
    count = len(images)
    color, alpha = images[..., :3], images[..., 3:]
    if generator is not None:
        color = vary_exposure(color, generator)
    backdrop = torch.tensor(processor.background)
    pixels = (color * alpha + backdrop * (1 - alpha)).permute(0, 3, 1, 2)
    zoom, shift = torch.ones(count), torch.zeros(count, 2)
    if generator is not None:
        # Little: how large a head is shows in nothing but its size in the frame.
        zoom = uniform(0.97, 1.03, count, generator)
        shift = uniform(-0.03, 0.03, 2 * count, generator).view(count, 2)
    axis = (torch.arange(processor.size) + 0.5) / processor.size * 2 - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    grid = grid * zoom[:, None, None, None] + shift[:, None, None]
    framed = grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
    return (framed - mean[:, None, None]) / std[:, None, None]
