# SPDX-License-Identifier: Apache-2.0
"""Surfaces are closed from near, and an open mouth has an inside."""

from dataclasses import replace

import torch

from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds
from pointillist_hf.refinement.gaps import (
    FINEST,
    LOOSE,
    MOST_GROWN,
    close_back,
    close_gaps,
    measure_spacings,
    smallest_scales,
)
from pointillist_hf.refinement.mouth_lining import BEHIND_SKIN, LINING_OPACITY, line_mouth
from pointillist_hf.refinement.optimization import RefinementSettings, refine
from pointillist_hf.rendering import rasterize


def flat_discs(tiny_gaussians, spacing=2e-3, side=24):
    """A wall of discs that face the camera, far smaller than they are apart."""
    across = (torch.arange(side) - side / 2) * spacing
    y, x = torch.meshgrid(across, across, indexing="ij")
    count = side * side
    first = tiny_gaussians[torch.zeros(count, dtype=torch.int64)]
    return replace(
        first,
        means=torch.stack([x.flatten(), y.flatten(), torch.zeros(count)], -1),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4),
        scales=spacing * torch.tensor([0.2, 0.15, 0.02]).expand(count, 3),
        opacities=torch.full((count,), 0.95),
    )


def close_among_their_own(gaussians, kinds):
    return close_gaps(gaussians, kinds, measure_spacings(gaussians.means, kinds))


def test_spacings_are_those_of_the_loop(cloud):
    spacings = measure_spacings(cloud.means, cloud.kinds)
    for n in range(0, len(cloud), 97):
        alike = cloud.means[cloud.kinds == cloud.kinds[n]]
        distances = (alike - cloud.means[n]).norm(dim=-1).sort().values
        torch.testing.assert_close(spacings[n], distances[1:5].mean(), rtol=1e-4, atol=1e-7)


def test_a_wall_of_dots_becomes_a_wall(tiny_gaussians):
    dots = flat_discs(tiny_gaussians)
    camera = orbit_cameras([0.0], fov=1.5, width=96, height=96, target=[0.0, 0.0, 0.0])
    kinds = torch.full((len(dots),), int(PointKind.SKIN))
    before, after = (
        rasterize(g, camera)[1][0].min() for g in (dots, close_among_their_own(dots, kinds))
    )
    assert before < 0.05
    assert after > 0.6
    thin = close_among_their_own(dots, kinds).scales
    assert torch.equal(thin[:, 2], dots.scales[:, 2]), "discs stay flat"


def test_what_is_large_enough_and_what_may_have_gaps_stays(tiny_gaussians):
    dots = flat_discs(tiny_gaussians)
    skin, hair = (torch.full((len(dots),), int(k)) for k in (PointKind.SKIN, PointKind.HAIR))
    large = replace(dots, scales=10 * dots.scales)
    assert torch.equal(close_among_their_own(large, skin).scales, large.scales)
    assert torch.equal(close_among_their_own(dots, hair).scales, dots.scales)
    # Hair that reaches farther than its neighbours would be a halo.
    spacings = measure_spacings(large.means, hair)
    trimmed = close_among_their_own(large, hair).scales
    assert torch.equal(trimmed, large.scales.minimum(LOOSE * spacings[:, None]))
    assert (trimmed < large.scales).any()
    # One alone has no neighbours, and stays a splat.
    alone = close_among_their_own(large[:1], hair[:1]).scales
    assert torch.equal(alone, large.scales[:1].clamp_max(FINEST))


def test_a_lone_splat_of_skin_stays_small(tiny_gaussians):
    dots = flat_discs(tiny_gaussians)[:6]
    lone = replace(dots, means=dots.means + 0.1 * torch.eye(6)[:, :3])
    skin = torch.full((6,), int(PointKind.SKIN))
    assert measure_spacings(lone.means, skin).min() > 0.04
    grown = close_among_their_own(lone, skin).scales
    assert torch.equal(grown[:, 0], MOST_GROWN * dots.scales[:, 0])


def test_hair_behind_the_head_hides_what_is_below(tiny_gaussians):
    dots = flat_discs(tiny_gaussians)
    thin = replace(dots, opacities=torch.full((len(dots),), 0.3))
    hair = torch.full((len(dots),), int(PointKind.HAIR))
    spacings = measure_spacings(dots.means, hair)
    camera = orbit_cameras([0.0], fov=1.5, width=96, height=96, target=[0.0, 0.0, 0.0])
    for facing, is_solid in ((-0.9, True), (0.1, False)):
        closed = close_back(thin, hair, spacings, torch.full((len(dots),), facing))
        assert torch.equal(closed.scales, thin.scales) is not is_solid
        assert (rasterize(closed, camera)[1][0].min() > 0.6) == is_solid
    skin = torch.zeros_like(hair)
    same = close_back(thin, skin, spacings, torch.full((len(dots),), -0.9))
    assert torch.equal(same.opacities, thin.opacities)
    assert torch.equal(same.scales, thin.scales)


def test_refinement_opens_no_gaps(colored, cloud, view, tiny_rig):
    closed = close_among_their_own(colored, cloud.kinds)
    least = smallest_scales(closed, cloud.kinds, measure_spacings(closed.means, cloud.kinds))
    hasty = RefinementSettings(scale_rate=0.5)
    refined = refine(
        closed, cloud.bindings, cloud.kinds, [view], tiny_rig, num_steps=6, settings=hasty,
        show_progress=False,
    )  # fmt: skip
    assert (refined.scales < 0.9 * closed.scales).any(), "nothing was shrunk at all"
    assert (refined.scales >= 0.999 * least).all()


def test_only_the_deep_inside_of_the_mouth_is_opaque(colored, cloud, tiny_rig):
    thin = replace(colored, opacities=torch.full_like(colored.opacities, 0.01))
    lined = line_mouth(thin, cloud.points, cloud.kinds, find_face_kinds(tiny_rig))
    mouth = cloud.kinds == PointKind.MOUTH
    skin = cloud.means[cloud.kinds == PointKind.SKIN]
    opaque = lined.opacities > 0.5
    assert opaque.any() and not opaque[~mouth].any()
    assert torch.cdist(cloud.means[opaque], skin).amin(1).min() > BEHIND_SKIN
    assert (lined.opacities[opaque] == LINING_OPACITY).all()
    assert torch.equal(lined.scales[~opaque], thin.scales[~opaque])


def test_a_cloud_without_a_mouth_stays(colored, cloud, tiny_rig):
    skin = torch.zeros_like(cloud.kinds)
    assert line_mouth(colored, cloud.points, skin, find_face_kinds(tiny_rig)) is colored
