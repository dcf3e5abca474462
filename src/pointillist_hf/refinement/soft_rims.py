# SPDX-License-Identifier: Apache-2.0
"""Colours at the rim of a subject, without the background that is mixed into them."""

from __future__ import annotations

import torch
from torch import Tensor

from .distance_maps import blur_picture, nearest_pixels, shrink_mask, signed_distances

SURE = 0.9  # of a matte, and of the way from the background's colour to the subject's
DEEP, BEYOND = 9.0, 3.0  # pixels inside the border, where colours are pure, and outside of it
REACH, ENOUGH = 6.0, 1e-2  # standard deviation of the means of both, pixels; share of them near by
CONTRAST, FEW = 0.02, 200  # squared, of colours that tell; pixels of a ring that say nothing


def carry_outwards(image: Tensor, matte: Tensor) -> Tensor:
    """The photograph with the subject's colours carried outwards over the matte's border.

    The border of a matte is soft: what it calls subject is half background there, and points at
    the rim would keep that background when the head turns. In a blurred photograph, so is more.

    Args:
        image: sRGB. [H, W, 3]
        matte: [H, W]
    """
    sure = shrink_mask(matte > SURE)
    if not sure.any():
        return image
    distances = signed_distances(matte > 0.5)
    deeper = sure & (distances > measure_rim(image, distances))
    distances, nearest = nearest_pixels(deeper if deeper.any() else sure)
    outside = blur_picture(image.flatten(0, 1)[nearest], 1.0)
    share = (distances / 2).clamp(0, 1)[..., None]
    return torch.lerp(image, outside, share)


def measure_rim(image: Tensor, distances: Tensor) -> int:
    """How many pixels deep the background is mixed into the subject, 0 to 8.

    Args:
        image: sRGB. [H, W, 3]
        distances: To the border of the subject, pixels; positive inside. [H, W]
    """
    subject, near_subject = _mean_near(image, distances > DEEP)
    background, near_background = _mean_near(image, distances < -BEYOND)
    way = subject - background
    contrast = way.square().sum(-1)
    shares = ((image - background) * way).sum(-1) / contrast.clamp_min(CONTRAST)
    tells = (contrast > CONTRAST) & near_subject & near_background
    for depth in range(1, int(DEEP)):
        ring = shares[tells & ((distances - depth).abs() <= 0.5)]
        if len(ring) < FEW or ring.median() > SURE:
            return depth - 1
    return int(DEEP) - 1


def _mean_near(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean colour of the mask near each pixel [H, W, 3], and where there is enough of it [H, W]."""
    weight = mask[..., None].to(image)
    sums = blur_picture(torch.cat([image * weight, weight], dim=-1), REACH)
    total = sums[..., 3:]
    return sums[..., :3] / total.clamp_min(ENOUGH), total[..., 0] > ENOUGH
