# SPDX-License-Identifier: Apache-2.0
"""Opacities and sizes that follow the matte."""

from dataclasses import replace

import pytest
import torch

from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.refinement.coverage import LARGEST_GROWTH, correct_coverage
from pointillist_hf.refinement.dressing import find_thinning
from pointillist_hf.refinement.face_kinds import PointKind
from pointillist_hf.refinement.placement import place_points
from pointillist_hf.rendering import rasterize


def draw_alphas(gaussians, cloud, view, rig):
    placement = place_points(CanonicalPoints(gaussians.means, cloud.bindings), rig, view.rig_params)
    return rasterize(placement.pose_gaussians(gaussians), view.cameras)[1][0]


@pytest.mark.parametrize("factor", [0.35, 2.5])
def test_alphas_come_nearer_to_the_matte(colored, cloud, view, tiny_rig, factor):
    """Whether all splats are too small and thin, or too large."""
    spoilt = replace(colored, scales=factor * colored.scales, opacities=0.7 * colored.opacities)
    corrected = correct_coverage(spoilt, cloud.bindings, view, tiny_rig)
    before, after = (
        (draw_alphas(g, cloud, view, tiny_rig)[..., 0] - view.matte).abs()[view.inside].mean()
        for g in (spoilt, corrected)
    )
    assert after < 0.8 * before


def test_what_agrees_stays(colored, cloud, view, tiny_rig):
    own = replace(view, matte=draw_alphas(colored, cloud, view, tiny_rig)[..., 0])
    corrected = correct_coverage(colored, cloud.bindings, own, tiny_rig)
    torch.testing.assert_close(corrected.scales, colored.scales, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(corrected.opacities, colored.opacities, rtol=1e-2, atol=1e-3)


def test_what_is_hidden_stays(colored, cloud, view, tiny_rig, projected):
    """The back of the head has no part in the photograph, whatever its matte says."""
    solid = replace(colored, opacities=torch.full_like(colored.opacities, 0.98))
    placement = place_points(cloud.points, tiny_rig, view.rig_params)
    with torch.enable_grad():
        colors = torch.ones_like(solid.colors, requires_grad=True)
        posed = placement.pose_gaussians(replace(solid, colors=colors))
        rasterize(posed, view.cameras)[0].sum().backward()
    unseen = colors.grad.sum(-1) == 0
    assert 0.02 < unseen.float().mean() < 0.9
    empty = replace(view, matte=torch.zeros_like(view.matte))
    corrected = correct_coverage(solid, cloud.bindings, empty, tiny_rig, num_rounds=1)
    assert torch.equal(corrected.opacities[unseen], solid.opacities[unseen])
    torch.testing.assert_close(corrected.scales[unseen], solid.scales[unseen])
    assert (corrected.opacities[~unseen] < 0.98).float().mean() > 0.5


def test_growth_is_bounded_and_the_rest_untouched(colored, cloud, view, tiny_rig):
    full = replace(view, matte=torch.ones_like(view.matte))
    corrected = correct_coverage(colored, cloud.bindings, full, tiny_rig, num_rounds=6)
    growth = (corrected.scales / colored.scales).log()
    assert growth.max() == pytest.approx(LARGEST_GROWTH, abs=1e-4)
    assert torch.equal(corrected.means, colored.means)
    assert torch.equal(corrected.colors, colored.colors)


def test_skin_stays_solid(colored, cloud, view, tiny_rig, projected):
    """From the side it would be a hole, with hair behind it."""
    thinning = find_thinning(projected)
    kept = projected.kinds == PointKind.SKIN
    assert (thinning[kept] == 0).all()
    assert (thinning[projected.kinds == PointKind.HAIR] == 1).all()
    solid = replace(colored, opacities=torch.full_like(colored.opacities, 0.9))
    empty = replace(view, matte=torch.zeros_like(view.matte))
    thinned, spared = (
        correct_coverage(solid, cloud.bindings, empty, tiny_rig, thinning=share).opacities
        for share in (1.0, thinning)
    )
    assert (thinned[kept] < 0.85).any()
    assert (spared[kept] >= solid.opacities[kept]).all()
    upright = (projected.kinds != PointKind.SKIN) & projected.is_visible
    assert (spared[upright] < 0.85).any()
    # What lacks is filled all the same.
    full = replace(view, matte=torch.ones_like(view.matte))
    filled = correct_coverage(solid, cloud.bindings, full, tiny_rig, thinning=thinning)
    assert (filled.opacities[kept] > 0.9).any()
