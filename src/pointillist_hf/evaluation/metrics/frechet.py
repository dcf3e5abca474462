# SPDX-License-Identifier: Apache-2.0
"""Distances of two sets of pictures by their features: FID and KID.

FID between two halves of one set is far from zero when the sets are small; results therefore name
the number of pictures, as FID@N, and carry the distance of real pictures to real ones beside.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_features(first: Tensor, second: Tensor) -> None:
    """Refuses sets that have no distance.

    Raises:
        ValueError: A set has fewer than two pictures, widths differ, or values are not finite.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            "Features must be of shapes [N, D] and [M, D], got "
            f"{tuple(first.shape)} and {tuple(second.shape)}."
        )
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"A set must hold at least 2 pictures, got {len(first)} and {len(second)}."
        )
    if not (first.isfinite().all() and second.isfinite().all()):
        raise ValueError("Features must be finite, and some are not.")


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Frechet distance of the Gaussians that two sets of features have. [N, D], [M, D]

    The trace of the square root of a product of covariances is the sum of the singular values of
    A B^T, where A and B are the centred features over the square roots of N - 1 and M - 1. This
    needs no root of a D x D matrix, and holds for any rank.
    """
    check_features(first, second)
    a, b = first.double(), second.double()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    a = (a - a.mean(0)) / (len(a) - 1) ** 0.5
    b = (b - b.mean(0)) / (len(b) - 1) ** 0.5
    shared = torch.linalg.svdvals(a @ b.T).sum()
    distance = gap + a.square().sum() + b.square().sum() - 2 * shared
    return float(distance.clamp(min=0))


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Squared maximum mean discrepancy with the kernel (x y / D + 1)^3, unbiased (KID).

    Sets of one distribution give 0 in the mean, for any N, and may give less than 0.
    """
    check_features(first, second)
    a, b = first.double(), second.double()
    inside = sum(_mean_off_diagonal(_kernel(x, x)) for x in (a, b))
    return float(inside - 2 * _kernel(a, b).mean())


def real_floor(features: Tensor) -> float | None:
    """FID of every other picture of a set to the rest; None below four pictures. [N, D]"""
    return frechet_distance(features[::2], features[1::2]) if len(features) >= 4 else None


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    return (first @ second.T / first.shape[1] + 1) ** 3


def _mean_off_diagonal(values: Tensor) -> Tensor:
    count = len(values)
    return (values.sum() - values.trace()) / (count * (count - 1))
