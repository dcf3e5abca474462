# SPDX-License-Identifier: Apache-2.0
"""Metrics that need no network: PSNR, SSIM, L1 of Laplacian pyramids.

Pictures are sRGB in [0, 1], [C, H, W, 3]; every function gives one number for each picture.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate

MAX_PSNR = 100.0  # dB, of equal pictures; infinity could not be averaged
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
NUM_LEVELS = 5


def check_pictures(images: Tensor, targets: Tensor) -> None:
    """Refuses what is no pair of pictures.

    Raises:
        ValueError: Shapes differ, or values are not numbers in [0, 1].
    """
    if images.shape != targets.shape or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            "`images` and `targets` must have one shape [C, H, W, 3], got "
            f"{tuple(images.shape)} and {tuple(targets.shape)}."
        )
    for name, values in (("images", images), ("targets", targets)):
        # NaN is in no interval.
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"`{name}` must be sRGB in [0, 1], and holds other values or NaN.")


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, at most 100. [C]"""
    check_pictures(images, targets)
    errors = (images - targets).square().flatten(1).mean(1)
    return (-10 * errors.log10()).clamp(max=MAX_PSNR)


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity of the colour channels, windows within the picture; 1 is equal. [C]"""
    check_pictures(images, targets)
    if min(images.shape[1:3]) < WINDOW:
        raise ValueError(
            f"`images` must be at least {WINDOW} pixels wide and high, got "
            f"{images.shape[2]} x {images.shape[1]}."
        )
    a, b = (x.permute(0, 3, 1, 2).double() for x in (images, targets))
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a.square(), _blur(b * b) - mean_b.square()
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    structure = (2 * covariance + C2) / (var_a + var_b + C2)
    return (luminance * structure).flatten(1).mean(1).float()


def laplacian_l1(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference of the levels of Laplacian pyramids, each level counting alike. [C]

    The blurred rest is left out: it holds brightness and nothing of the shape.
    """
    check_pictures(images, targets)
    rest = (images - targets).permute(0, 3, 1, 2)  # the pyramid is linear
    levels = []
    while len(levels) < NUM_LEVELS and min(rest.shape[-2:]) >= 2:
        smaller = avg_pool2d(rest, 2)
        grown = interpolate(smaller, rest.shape[-2:], mode="bilinear", align_corners=False)
        levels.append((rest - grown).abs().flatten(1).mean(1))
        rest = smaller
    return torch.stack(levels).mean(0)


def _blur(images: Tensor) -> Tensor:
    places = torch.arange(WINDOW, dtype=images.dtype) - WINDOW // 2
    bell = torch.exp(-places.square() / (2 * SIGMA**2))
    bell = (bell / bell.sum()).expand(images.shape[1], 1, 1, -1)
    rows = conv2d(images, bell, groups=images.shape[1])
    return conv2d(rows, bell.transpose(2, 3), groups=images.shape[1])
