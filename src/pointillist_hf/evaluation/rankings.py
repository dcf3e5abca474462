# SPDX-License-Identifier: Apache-2.0
"""Distances between pictures, values in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_errors(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error of every picture against every target. [A, ...], [B, ...] -> [A, B]"""
    rows = [(image - targets).abs().flatten(1).mean(1) for image in images]
    return torch.stack(rows)


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 0; equal values share the mean of theirs. [K] -> [K]"""
    below = (values[None] < values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return below + (equal - 1) / 2


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's correlation of two lists of numbers, in [-1, 1]. [K], [K]"""
    ranks = torch.stack([average_ranks(first), average_ranks(second)]).double()
    return float(torch.corrcoef(ranks)[0, 1])
