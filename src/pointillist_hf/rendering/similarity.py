# SPDX-License-Identifier: Apache-2.0
"""How alike two pictures are. Images are [C, H, W, 3] with values in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture, decibels; infinite for equal ones.

    Args:
        images: [C, H, W, 3]
        targets: [C, H, W, 3]

    Returns:
        [C]
    """
    return -10 * (images - targets).square().flatten(1).mean(1).log10()


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Mean SSIM of image pairs, with the usual 11 x 11 Gaussian window and zero padding.

    Args:
        first: Values in [0, 1]. [C, H, W, 3]
        second: Likewise.

    Returns:
        One number; 1 for equal images.
    """
    height, width = first.shape[1:3]
    down, along = (_blur_matrix(size, first) for size in (height, width))

    def blur(images: Tensor) -> Tensor:
        return down @ images @ along

    a, b = (images.permute(0, 3, 1, 2).flatten(0, 1) for images in (first, second))
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a.square(), blur(b * b) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a.square() + mean_b.square() + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_a + var_b + SSIM_C2)
    return (luminance * structure).mean()


def _blur_matrix(size: int, like: Tensor) -> Tensor:
    """The Gaussian window as a matrix on the pixels of a line: symmetric, zero beyond the ends.

    On a CPU two products with it are ten times faster than convolutions with their gradient.
    """
    place = torch.arange(size, device=like.device, dtype=like.dtype)
    distances = place[:, None] - place
    bell = torch.exp(-distances.square() / (2 * SSIM_SIGMA**2))
    bell = bell * (distances.abs() <= SSIM_WINDOW // 2)
    reach = torch.arange(SSIM_WINDOW, device=like.device, dtype=like.dtype) - SSIM_WINDOW // 2
    return bell / torch.exp(-reach.square() / (2 * SSIM_SIGMA**2)).sum()
