# SPDX-License-Identifier: Apache-2.0
"""Distances on the pixel grid, masks and their parts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad

ROWS = 32  # of a picture whose distances are held in memory


def nearest_pixels(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest pixel of a mask, from every pixel.

    Args:
        mask: True somewhere. [H, W]

    Returns:
        Distances in pixels [H, W]; flat indices of the nearest pixels [H, W]. Where the mask is
        empty, distances are infinite and indices are those of the pixels themselves.
    """
    height, width = mask.shape
    own = torch.arange(height * width).reshape(height, width)
    if not mask.any():
        return torch.full((height, width), torch.inf), own
    vertical, rows = _nearest_in_columns(mask)
    columns = torch.arange(width, dtype=vertical.dtype)
    across = (columns[:, None] - columns).square() * width + columns  # [W, W]
    # The column rides on the distance: the least of one number is found faster than its place.
    squared = vertical.square() * width
    least = torch.cat([(part[:, None] + across).amin(2) for part in squared.split(ROWS)])
    best = (least % width).long()
    return (least // width).float().sqrt(), rows.gather(1, best) * width + best


def _nearest_in_columns(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to, and row of, the nearest pixel of the mask in the same column. [H, W] each"""
    height = len(mask)
    rows = torch.arange(height)[:, None].expand_as(mask)
    far = height + mask.shape[1]  # beyond every distance in the picture
    above = torch.where(mask, rows, -far).cummax(0).values
    below = torch.where(mask, rows, height + far).flip(0).cummin(0).values.flip(0)
    up, down = rows - above, below - rows
    nearest = torch.where(up <= down, above, below).clamp(0, height - 1)
    # Squared distances and a column must fit into one number.
    largest = (far**2 + mask.shape[1] ** 2 + 1) * mask.shape[1]
    dtype = torch.int32 if largest < 2**31 else torch.int64
    return torch.minimum(up, down).clamp(max=far).to(dtype), nearest


def signed_distances(mask: Tensor) -> Tensor:
    """Pixels to the border of a mask, from pixel centres: positive inside. [H, W]"""
    inside, _ = nearest_pixels(~mask)
    outside, _ = nearest_pixels(mask)
    limit = float(max(mask.shape))
    return torch.where(mask, inside - 0.5, 0.5 - outside).clamp(-limit, limit)


def shrink_mask(mask: Tensor, pixels: int = 1) -> Tensor:
    """The mask without its border. [H, W]"""
    return ~grow_mask(~mask, pixels)


def grow_mask(mask: Tensor, pixels: int = 1) -> Tensor:
    """The mask with its neighbours. [H, W]"""
    grown = max_pool2d(mask[None, None].float(), 2 * pixels + 1, stride=1, padding=pixels)
    return grown[0, 0] > 0


def blur_picture(picture: Tensor, sigma: float) -> Tensor:
    """The picture under a Gaussian window, its edges repeated. [H, W, K] -> [H, W, K]"""
    reach = max(1, round(3 * sigma))
    bell = torch.exp(-(torch.arange(-reach, reach + 1).float() / sigma).square() / 2)
    bell = (bell / bell.sum()).to(picture)
    planes = pad(picture.permute(2, 0, 1)[:, None], (reach,) * 4, mode="replicate")
    planes = conv2d(conv2d(planes, bell[None, None, :, None]), bell[None, None, None])
    return planes[:, 0].permute(1, 2, 0)


def keep_large_parts(mask: Tensor, smallest: int) -> Tensor:
    """The mask without connected parts of fewer pixels; neighbours share a side. [H, W]"""
    labels = label_parts(mask)
    sizes = torch.bincount(labels.flatten(), minlength=int(labels.max()) + 1)
    return mask & (sizes[labels] >= smallest)


def label_parts(mask: Tensor) -> Tensor:
    """Connected parts by number, 0 outside the mask; neighbours share a side. [H, W]"""
    height, width = mask.shape
    labels = torch.where(mask, torch.arange(1, height * width + 1).reshape(height, width), 0)
    while True:
        before = labels
        for axis in (0, 1):
            labels = _spread_along(labels, mask, axis)
        if torch.equal(labels, before):
            return labels


def _spread_along(labels: Tensor, mask: Tensor, axis: int) -> Tensor:
    """The largest label of each run of the mask along an axis, everywhere in the run."""
    runs = (~mask).long().cumsum(axis)
    if axis == 0:
        labels, runs, mask = labels.T, runs.T, mask.T
    span = int(runs.max()) + 1
    keys = runs + span * torch.arange(len(runs))[:, None]
    largest = torch.zeros(span * len(runs), dtype=labels.dtype)
    largest.scatter_reduce_(0, keys.flatten(), labels.flatten(), "amax")
    spread = torch.where(mask, largest[keys], 0)
    return spread.T if axis == 0 else spread
