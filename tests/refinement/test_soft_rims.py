# SPDX-License-Identifier: Apache-2.0
"""Rims of subjects: no background in their colours, however blurred the photograph is."""

import pytest
import torch

from pointillist_hf.refinement.distance_maps import blur_picture, signed_distances
from pointillist_hf.refinement.soft_rims import carry_outwards, measure_rim

RED, GREEN = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.8, 0.2])
SIZE = 96


def photograph(sigma, subject=RED, background=GREEN):
    """A disc out of focus, and the matte that a network would give it."""
    rows = torch.arange(SIZE) - SIZE / 2 + 0.5
    matte = (rows[:, None].square() + rows.square() < 30**2).float()[..., None]
    share = blur_picture(matte, sigma) if sigma else matte
    texture = 0.04 * torch.randn(SIZE, SIZE, 1, generator=torch.Generator().manual_seed(0))
    return torch.lerp(background, subject, share) + texture, matte[..., 0]


@pytest.mark.parametrize(("sigma", "deepest"), [(0.0, 1), (1.0, 2), (3.0, 5), (4.0, 7)])
def test_rims_are_as_deep_as_the_blur(sigma, deepest):
    """Of a straight border, .9 of the subject's colour are reached 1.28 deviations inside."""
    image, matte = photograph(sigma)
    rim = measure_rim(image, signed_distances(matte > 0.5))
    assert rim <= deepest
    assert rim >= min(1.28 * sigma - 1.0, 8)


def test_no_rim_is_seen_without_contrast():
    image, matte = photograph(4.0, background=RED)
    assert measure_rim(image, signed_distances(matte > 0.5)) == 0
    assert measure_rim(image, torch.full_like(matte, 5.0)) == 0, "no background at all"


@pytest.mark.parametrize("sigma", [0.0, 2.0, 4.0])
def test_points_at_the_rim_get_the_subjects_colour(sigma):
    image, matte = photograph(sigma)
    carried = carry_outwards(image, matte)
    rim = signed_distances(matte > 0.5).abs() < 2
    assert (carried[rim] - RED).abs().mean() < 0.08
    if sigma:
        assert (image[rim] - RED).abs().mean() > 0.15
    deep = signed_distances(matte > 0.5) > 12
    assert torch.equal(carried[deep], image[deep])


def test_nothing_is_carried_without_a_subject():
    image, matte = photograph(0.0)
    assert torch.equal(carry_outwards(image, 0 * matte), image)


def test_the_background_does_not_come_through_the_border():
    matte = torch.zeros(32, 32)
    matte[8:24, 8:24] = 1
    matte[7, 8:24] = matte[24, 8:24] = 0.5
    image = torch.zeros(32, 32, 3)
    image[..., 1] = 1
    image[8:24, 8:24] = torch.tensor([1.0, 0, 0])
    carried = carry_outwards(image, matte)
    # Two pixels inside the border nothing but the subject is left, and so it is outside.
    assert torch.allclose(carried[3:5, 12:20], torch.tensor([1.0, 0, 0]).expand(2, 8, 3), atol=1e-5)
    assert torch.equal(carried[12:20, 12:20], image[12:20, 12:20])
