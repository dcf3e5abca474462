# SPDX-License-Identifier: Apache-2.0
"""How alike two pictures are. Images are [C, H, W, 3] with values in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

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
    axis = torch.arange(SSIM_WINDOW, device=first.device, dtype=first.dtype) - SSIM_WINDOW // 2
    bell = torch.exp(-axis.square() / (2 * SSIM_SIGMA**2))
    bell = bell / bell.sum()

    def blur(images: Tensor) -> Tensor:
        rows = conv2d(images, bell.view(1, 1, 1, -1), padding=(0, SSIM_WINDOW // 2))
        return conv2d(rows, bell.view(1, 1, -1, 1), padding=(SSIM_WINDOW // 2, 0))

    a, b = (images.permute(0, 3, 1, 2).flatten(0, 1)[:, None] for images in (first, second))
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a.square(), blur(b * b) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a.square() + mean_b.square() + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_a + var_b + SSIM_C2)
    return (luminance * structure).mean()
