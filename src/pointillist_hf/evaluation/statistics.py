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


@dataclass(frozen=True)
class PairedDifference:
    """How two systems differ on the same people: what people have in common falls out."""

    mean: float  # first minus second, over people
    low: float
    high: float
    num_higher: int  # people for whom the first one has the higher figure
    num_lower: int
    num_identities: int
    chance: float  # of the sign test


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


def paired_difference(
    first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]], *, seed: int = 0
) -> PairedDifference | None:
    """Mean difference of two systems, by people whom both have figures of.

    Args:
        first: Of each person's pictures.
        second: Likewise, of another system.
        seed: Of the interval's draws.

    Returns:
        None where they have nobody in common.
    """
    shared = sorted(p for p in first.keys() & second.keys() if first[p] and second[p])
    gaps = {p: [sum(first[p]) / len(first[p]) - sum(second[p]) / len(second[p])] for p in shared}
    estimate = mean_over_people(gaps, seed=seed)
    if estimate is None:
        return None
    higher, lower = (sum(side * gap > 0 for [gap] in gaps.values()) for side in (1, -1))
    return PairedDifference(
        estimate.mean,
        estimate.low,
        estimate.high,
        higher,
        lower,
        len(shared),
        sign_test(higher, lower),
    )


def sign_test(num_higher: int, num_lower: int) -> float:
    """How likely chance alone would be as lopsided, to either side, in [0, 1].

    Args:
        num_higher: People for whom one of two systems has the higher figure.
        num_lower: People for whom it has the lower one; ties count for neither.
    """
    count, fewer = num_higher + num_lower, min(num_higher, num_lower)
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(fewer + 1)) / 2**count)
