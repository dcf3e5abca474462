# SPDX-License-Identifier: Apache-2.0
"""PSNR, SSIM and the Laplacian L1: known values, and another library's."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from pointillist_hf.evaluation.metrics.pixels import laplacian_l1, psnr, ssim

METRICS = pytest.mark.parametrize("metric", [psnr, ssim, laplacian_l1])


@pytest.fixture
def pair():
    a = torch.rand(2, 40, 48, 3)
    return a, (a + 0.1 * torch.randn_like(a)).clamp(0, 1)


def test_ssim_is_that_of_another_library(pair):
    expected = [
        structural_similarity(
            one.double().numpy(),
            other.double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=-1,
        )
        for one, other in zip(*pair, strict=True)
    ]
    assert np.allclose(ssim(*pair), expected, atol=1e-6)


def test_psnr_of_a_known_error():
    black = torch.zeros(1, 12, 12, 3)
    assert psnr(black, black + 0.1) == pytest.approx(20.0, abs=1e-4)


@METRICS
def test_equal_pictures_are_best_and_order_does_not_matter(metric, pair):
    a, b = pair
    best = {psnr: 100.0, ssim: 1.0, laplacian_l1: 0.0}[metric]
    assert torch.allclose(metric(a, a), torch.full((2,), best))
    assert torch.allclose(metric(a, b), metric(b, a))
    assert torch.allclose(metric(a, b)[:1], metric(a[:1], b[:1]))
    sign = -1 if metric is laplacian_l1 else 1
    assert (sign * metric(a, b) < sign * best).all()


def test_the_pyramid_sees_edges_and_no_brightness():
    image = torch.rand(1, 64, 64, 3) / 2
    assert laplacian_l1(image, image + 0.2) < 1e-6
    assert laplacian_l1(image, image.flip(1)) > 0.01


@METRICS
def test_what_is_no_picture_is_refused(metric, pair):
    a, b = pair
    with pytest.raises(ValueError, match="one shape"):
        metric(a, b[:1])
    with pytest.raises(ValueError, match=r"`targets` must be sRGB in \[0, 1\]"):
        metric(a, b * torch.nan)
    with pytest.raises(ValueError, match="`images` must be sRGB"):
        metric(a + 1, b)
