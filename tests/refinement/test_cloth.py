# SPDX-License-Identifier: Apache-2.0
"""Clothes are where the photograph shows them, as fine as it shows them."""

from dataclasses import replace

import pytest
import torch

from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.refinement.cloth_points import REACH, lay_cloth
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds
from pointillist_hf.refinement.gaps import (
    FINEST,
    MOST_LAID,
    TIGHT,
    TOUCHING,
    fit_cloth,
    measure_spacings,
)
from pointillist_hf.refinement.mesh_pictures import at_pixels, draw_rig
from pointillist_hf.refinement.pixel_kinds import classify_pixels
from pointillist_hf.refinement.placement import place_points
from pointillist_hf.refinement.portrait_view import metres_per_pixel
from pointillist_hf.refinement.rig_points import find_seen_faces
from pointillist_hf.rendering import rasterize

DENSITY = 0.15  # of `cloud`


@pytest.fixture(scope="module")
def pixel_kinds(view, tiny_rig):
    return classify_pixels(view, tiny_rig, find_face_kinds(tiny_rig))


@pytest.fixture(scope="module")
def cloth(view, tiny_rig, pixel_kinds):
    return lay_cloth(view, tiny_rig, find_face_kinds(tiny_rig), pixel_kinds, density=0.5)


def posed_pixels(cloud, view, rig):
    placement = place_points(cloud.points, rig, view.rig_params)
    pixels, depths = project_points(placement.pose_means(cloud.means), view.cameras)
    return pixels[0], depths[0]


def test_points_lie_on_pixels_of_cloth_alone(cloth, view, tiny_rig, pixel_kinds):
    pixels, _ = posed_pixels(cloth, view, tiny_rig)
    assert len(cloth) > 100
    assert (at_pixels(pixel_kinds, pixels) == PointKind.CLOTH).float().mean() > 0.99
    assert (cloth.kinds == PointKind.CLOTH).all()


def test_a_collar_beside_the_rig_is_covered(cloth, cloud, view, tiny_rig, pixel_kinds):
    depth, _ = draw_rig(tiny_rig, view.rig_params, view.cameras)
    beside = (pixel_kinds == PointKind.CLOTH) & ~depth.isfinite() & (view.matte > 0.9)
    assert beside.sum() > 200, "the astronaut's collar is wider than her shoulders"

    def alphas(points):
        gaussians = points.to_gaussians(torch.zeros_like(points.means))
        placement = place_points(points.points, tiny_rig, view.rig_params)
        return rasterize(placement.pose_gaussians(gaussians), view.cameras)[1][0, ..., 0]

    assert (alphas(cloth)[beside] > 0.5).float().mean() > 0.9
    without = cloud[cloud.kinds != PointKind.CLOTH]
    assert (alphas(without)[beside] > 0.5).float().mean() < 0.3


def test_a_completed_cloud_holds_it(cloud, view, tiny_rig, pixel_kinds):
    laid = lay_cloth(view, tiny_rig, find_face_kinds(tiny_rig), pixel_kinds, DENSITY)
    own = cloud[cloud.kinds == PointKind.CLOTH]
    assert torch.cdist(laid.means, own.means).amin(1).median() < 1e-4


def test_it_lies_before_the_body_and_falls_back_beside_it(cloth, view, tiny_rig):
    rig_depth, face_ids = draw_rig(tiny_rig, view.rig_params, view.cameras)
    pixels, depths = posed_pixels(cloth, view, tiny_rig)
    on_rig = at_pixels(face_ids, pixels) >= 0
    ahead = at_pixels(torch.where(face_ids >= 0, rig_depth, 0), pixels) - depths
    assert (ahead[on_rig] > 0).float().mean() > 0.9
    assert depths[~on_rig].mean() > depths[on_rig].mean() + 0.01


def test_what_is_far_from_the_body_stays_bare(view, tiny_rig, pixel_kinds):
    everywhere = torch.full_like(pixel_kinds, int(PointKind.CLOTH))
    kinds = find_face_kinds(tiny_rig)
    far = lay_cloth(view, tiny_rig, kinds, everywhere, density=0.5)
    pixels, _ = posed_pixels(far, view, tiny_rig)
    face_ids = draw_rig(tiny_rig, view.rig_params, view.cameras)[1]
    body = ((face_ids >= 0) & kinds.is_anchor[face_ids.clamp_min(0)]).nonzero().flip(1) + 0.5
    metres = torch.cdist(pixels, body).amin(1) * metres_per_pixel(view)
    assert 0.7 * REACH < metres.max() < REACH + 2 * metres_per_pixel(view)


def test_neither_jaw_nor_lids_move_it(cloth, view, tiny_rig):
    opened = replace(view.rig_params, jaw_pose=torch.tensor([[0.3, 0.0, 0.0]]))
    places = [
        place_points(cloth.points, tiny_rig, params).pose_means(cloth.means)
        for params in (view.rig_params, opened)
    ]
    assert (places[0] - places[1]).norm(dim=-1).max() < 1e-3


def test_no_cloth_no_points(view, tiny_rig, pixel_kinds):
    bare = torch.where(pixel_kinds == PointKind.CLOTH, int(PointKind.SKIN), pixel_kinds)
    assert len(lay_cloth(view, tiny_rig, find_face_kinds(tiny_rig), bare, density=0.5)) == 0


def test_the_body_below_needs_few_points(view, tiny_rig, pixel_kinds):
    kinds = find_face_kinds(tiny_rig)
    bare = torch.where(pixel_kinds == PointKind.CLOTH, int(PointKind.SKIN), pixel_kinds)
    clothed, naked = (find_seen_faces(tiny_rig, view, kinds, p) for p in (pixel_kinds, bare))
    assert (naked & ~clothed).sum() > 50
    assert not (clothed & ~naked).any()


def test_splats_of_cloth_keep_to_their_pixels(colored, cloud):
    shown = torch.arange(len(cloud)) % 2 == 0
    laid = cloud.scales.amax(-1)
    spacings = measure_spacings(cloud.means, cloud.kinds).minimum(MOST_LAID * laid)
    for factor in (0.05, 20.0):
        decoded = replace(colored, scales=factor * colored.scales)
        fitted = fit_cloth(decoded, cloud.kinds, spacings, shown, torch.zeros(len(cloud)), laid)
        own = shown & (cloud.kinds == PointKind.CLOTH)
        assert own.any()
        assert torch.equal(fitted.scales[~own], decoded.scales[~own])
        largest = fitted.scales[own].amax(-1)
        assert (largest <= (TIGHT * spacings[own]).clamp_min(FINEST) + 1e-8).all()
        assert (largest >= TOUCHING * spacings[own] - 1e-8).all()
        # At the outline, a splat may be as large as its disc.
        discs = cloud.scales.amax(-1)
        wide = fit_cloth(decoded, cloud.kinds, spacings, shown, discs, laid).scales[own].amax(-1)
        assert (wide <= torch.maximum(largest, discs[own]) + 1e-8).all()
        assert factor < 1 or (wide > largest).any()


def test_a_lonely_splat_of_cloth_does_not_reach_for_others(colored, cloud):
    kinds = torch.where(cloud.kinds == PointKind.CLOTH, int(PointKind.SKIN), cloud.kinds)
    lonely = torch.tensor([0, len(cloud) // 2])
    kinds[lonely] = int(PointKind.CLOTH)
    spacings = measure_spacings(cloud.means, kinds)
    laid = cloud.scales.amax(-1)
    assert (spacings[lonely] > 5 * laid[lonely]).all()
    shown, allowed = torch.ones(len(cloud), dtype=torch.bool), torch.zeros(len(cloud))
    for factor in (1.0, 20.0):
        decoded = replace(colored, scales=factor * colored.scales)
        fitted = fit_cloth(decoded, kinds, spacings, shown, allowed, laid).scales[lonely]
        assert (fitted.amax(-1) <= MOST_LAID * laid[lonely]).all()
