# SPDX-License-Identifier: Apache-2.0
"""Means over people and how sure they are. Pictures of one person are no independent draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

NUM_DRAWS, SHARE, QUANTILE = 1000, 0.95, 1.96


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that holds it in 95 of 100 cases."""

    mean: float
    low: float
    high: float


def mean_over_people(values: Mapping[str, Sequence[float]], *, seed: int = 0) -> Estimate | None:
    """Mean of the means of people; the interval by drawing people anew (bootstrap).

    Args:
        values: Of each person's pictures. People without any are left out.
        seed: Of the draws.

    Returns:
        None where there is no value at all. With one person the interval is unbounded.
    """
    means = torch.tensor(
        [sum(v) / len(v) for _, v in sorted(values.items()) if len(v)], dtype=torch.float64
    )
    if not len(means):
        return None
    center = float(means.mean())
    if len(means) == 1:
        return Estimate(center, -math.inf, math.inf)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(means), (NUM_DRAWS, len(means)), generator=generator)
    edges = torch.tensor([(1 - SHARE) / 2, (1 + SHARE) / 2], dtype=torch.float64)
    low, high = means[drawn].mean(1).quantile(edges).tolist()
    return Estimate(center, low, high)


def set_over_people(distance: Callable[[list[str]], float], people: Sequence[str]) -> Estimate:
    """A figure of all pictures at once; the interval by leaving out one person each (jackknife).

    Drawing people anew would show pictures twice, and FID takes that for a lack of variety.

    Args:
        distance: The figure of the pictures of some people.
        people: All of them.
    """
    whole = distance(list(people))
    if len(people) < 3:
        return Estimate(whole, -math.inf, math.inf)
    parts = [distance([p for p in people if p != left_out]) for left_out in people]
    count, middle = len(parts), sum(parts) / len(parts)
    spread = math.sqrt((count - 1) / count * sum((part - middle) ** 2 for part in parts))
    return Estimate(whole, whole - QUANTILE * spread, whole + QUANTILE * spread)


def sign_test(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """How likely the two would differ in one direction for as many people by chance, in [0, 1].

    Args:
        first: A figure of each person.
        second: Another system's.
    """
    gaps = [first[p] - second[p] for p in first.keys() & second.keys() if first[p] != second[p]]
    count, fewer = len(gaps), min(sum(g > 0 for g in gaps), sum(g < 0 for g in gaps))
    tail = sum(math.comb(count, k) for k in range(fewer + 1)) / 2**count if count else 1.0
    return min(1.0, 2 * tail)
