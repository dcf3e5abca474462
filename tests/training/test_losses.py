# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from pointillist_hf.training.losses import (
    LossWeights,
    image_losses,
    offset_penalty,
    structural_similarity,
)


def test_ssim_of_equal_images_is_one():
    images = torch.rand(2, 20, 24, 3)
    assert structural_similarity(images, images).item() == pytest.approx(1, abs=1e-6)


def test_ssim_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    # A black margin wider than a window: padding with zeros then changes nothing.
    first = torch.nn.functional.pad(
        torch.rand(1, 24, 20, 3, dtype=torch.float64), (0, 0, 12, 12, 12, 12)
    )
    second = (0.7 * first + 0.2 * (first > 0)).clamp(0, 1)
    _, values = metrics.structural_similarity(
        first[0].numpy(),
        second[0].numpy(),
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    expected = values.mean()
    assert structural_similarity(first, second).item() == pytest.approx(expected, abs=1e-6)


def test_offset_penalty_counts_bins():
    offsets = torch.tensor([[0.003, 0.0, 0.0], [0.0, 0.0, 0.004]])
    assert offset_penalty(offsets, 0.001).item() == pytest.approx((9 + 16) / 2)


def test_image_losses_weigh_their_terms():
    rendered, target = torch.rand(1, 16, 16, 3), torch.rand(1, 16, 16, 3)
    weights = LossWeights(l1=2.0, ssim=3.0, perceptual=4.0)
    losses = image_losses(rendered, target, weights, lambda a, b: (a - b).square().mean())
    expected = 2 * losses["l1"] + 3 * losses["ssim"] + 4 * losses["perceptual"]
    assert losses["image"].item() == pytest.approx(expected.item())
    assert "perceptual" not in image_losses(rendered, target, weights)
