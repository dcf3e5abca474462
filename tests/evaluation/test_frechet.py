# SPDX-License-Identifier: Apache-2.0
"""FID and KID: scipy's root of the product, closed forms, and the bias of small sets."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pointillist_hf.evaluation.metrics.frechet import (
    frechet_distance,
    kernel_distance,
    real_floor,
)


def by_square_root(first, second):
    a, b = first.numpy(), second.numpy()
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(one @ other).real
    gap = a.mean(0) - b.mean(0)
    return gap @ gap + np.trace(one + other - 2 * root)


def test_scipys_square_root_gives_the_same():
    a = torch.randn(200, 64, dtype=torch.float64) @ torch.randn(64, 64, dtype=torch.float64) / 8
    b = torch.randn(150, 64, dtype=torch.float64) + 0.3
    assert frechet_distance(a, b) == pytest.approx(by_square_root(a, b), abs=1e-8)


def test_a_shift_is_its_square():
    a = torch.randn(30, 2048, dtype=torch.float64)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-7)
    assert frechet_distance(a, a + 0.1) == pytest.approx(2048 * 0.01, abs=1e-6)
    assert frechet_distance(a, a[:20]) == pytest.approx(frechet_distance(a[:20], a))


def test_small_sets_of_one_distribution_are_far_apart():
    """2048 features whose variances fall as 1 / k and add up to 150: 188 at N = 25."""
    variances = 1 / torch.arange(1, 2049, dtype=torch.float64)
    scale = (150 * variances / variances.sum()).sqrt()
    a, b = (torch.randn(2, 100, 2048, dtype=torch.float64) * scale).unbind()
    few, more = frechet_distance(a[:25], b[:25]), frechet_distance(a, b)
    assert few == pytest.approx(188, abs=20) and more == pytest.approx(129, abs=12)
    unbiased = [kernel_distance(a[i : i + 25], b[i : i + 25]) for i in (0, 25, 50, 75)]
    assert abs(np.mean(unbiased)) < 0.05 * kernel_distance(a[:25], b[:25] + 0.5)
    assert real_floor(a[:50]) > few / 2


def test_kid_written_out():
    a, b = torch.randn(2, 5, 7, dtype=torch.float64)
    kernel = [[[(float(x @ y) / 7 + 1) ** 3 for y in q] for x in p] for p, q in ((a, a), (b, b))]
    inside = [sum(k[i][j] for i in range(5) for j in range(5) if i != j) / 20 for k in kernel]
    across = np.mean([(float(x @ y) / 7 + 1) ** 3 for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(sum(inside) - 2 * across)
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(b, a))


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance])
def test_sets_without_a_distance_are_refused(metric):
    a = torch.randn(4, 8)
    with pytest.raises(ValueError, match="at least 2 pictures, got 4 and 1"):
        metric(a, a[:1])
    with pytest.raises(ValueError, match="must be finite"):
        metric(a, a / 0)
    with pytest.raises(ValueError, match="of shapes"):
        metric(a, a[:, :4])
    assert real_floor(a[:3]) is None
