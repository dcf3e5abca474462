# SPDX-License-Identifier: Apache-2.0
"""Shoulders below and behind what a photograph shows."""

from dataclasses import replace

import pytest
import torch

from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.portraits.portrait import CHIN
from pointillist_hf.refinement.completion import complete_points
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds
from pointillist_hf.refinement.kind_votes import ENOUGH, vote_kinds
from pointillist_hf.refinement.mesh_pictures import draw_rig
from pointillist_hf.refinement.outline import NECK, WIDER, end_with_photograph, keep_in_matte
from pointillist_hf.refinement.placement import place_points
from pointillist_hf.refinement.rig_points import adopt_points, choose_spacings
from pointillist_hf.refinement.tracked_portrait import TrackedPortrait

SKIN, CLOTH = int(PointKind.SKIN), int(PointKind.CLOTH)


@pytest.fixture
def chest():
    """Points of clothes from the front to the back, 5 mm apart. [N, 3]"""
    x, z = torch.meshgrid(torch.arange(-10, 11), torch.arange(-20, 21), indexing="ij")
    return torch.stack([x, 0 * x, z], dim=-1).reshape(-1, 3) * 5e-3


@pytest.mark.parametrize("share_of_cloth", [0.0, 0.4])
def test_who_wears_clothes_wears_them_behind_as_well(chest, share_of_cloth):
    expected = torch.full((len(chest),), CLOTH)
    visible = chest[:, 2] > 0
    # Skin in a neckline that is lower than the rig's, cloth farther out.
    seen = torch.where(chest[:, 0].abs() > 0.05 * (1 - share_of_cloth), CLOTH, SKIN)
    seen = torch.where(visible, seen, -1)
    assert (int((seen == CLOTH).sum()) >= ENOUGH) == (share_of_cloth > 0)
    kinds = vote_kinds(chest, expected, visible, seen)
    assert torch.equal(kinds[visible], seen[visible])
    behind = chest[:, 2] < -0.03
    assert (kinds[behind] == (CLOTH if share_of_cloth else SKIN)).all()
    # Right behind what is seen, its neighbours decide.
    middle = (chest[:, 0].abs() < 0.01) & (chest[:, 2] == 0)
    assert (kinds[middle] == SKIN).all()


def test_the_hem_is_where_the_body_ends(tiny_rig, view):
    hem = find_face_kinds(tiny_rig).is_hem
    lowest = tiny_rig.v_template[tiny_rig.faces][..., 1].amin(1)
    assert hem.any()
    assert (lowest[hem] < tiny_rig.v_template[:, 1].min() + 1e-3).all()
    assert hem[lowest < tiny_rig.v_template[:, 1].min() + 1e-3].all()
    covered = torch.full(view.matte.shape, CLOTH)
    kinds = find_face_kinds(tiny_rig)
    spacings = choose_spacings(tiny_rig, view, kinds, covered, 1.0)
    away = kinds.kinds == CLOTH
    assert spacings[hem].max() <= kinds.spacings[hem].max()
    assert spacings[away & ~hem].max() > 1.5 * spacings[hem].max()


def place(points, view, rig):
    """Pixels of a cloud. [N, 2]"""
    placement = place_points(points.points, rig, view.rig_params)
    return project_points(placement.pose_means(points.means), view.cameras)[0][0]


@pytest.fixture(scope="module")
def plain_cloud(plain_view, tiny_rig):
    return complete_points(None, plain_view, tiny_rig, density=0.15)


@pytest.fixture(scope="module")
def on_body(view, tiny_rig):
    """Pixels of the rig."""
    return draw_rig(tiny_rig, view.rig_params, view.cameras)[0].isfinite()


def test_a_pattern_ends_where_the_photograph_ends(plain_cloud, plain_view, view, tiny_rig, on_body):
    cloth = torch.where(on_body, CLOTH, -1)
    rows = place(plain_cloud, view, tiny_rig)[:, 1]
    below = (plain_cloud.kinds == CLOTH) & (rows > len(view.matte))
    assert below.sum() > 50
    whole = end_with_photograph(plain_cloud, plain_view, tiny_rig, cloth)
    assert torch.equal(whole.means, plain_cloud.means), "a plain shirt goes on"
    ended = end_with_photograph(plain_cloud, view, tiny_rig, cloth)
    assert torch.equal(ended.means, plain_cloud.means[~below])
    # Of clothes that are not seen nothing is known.
    skin = torch.full_like(cloth, SKIN)
    assert len(end_with_photograph(plain_cloud, view, tiny_rig, skin)) == len(plain_cloud)


def test_shoulders_wider_than_the_rig_end_with_the_photograph(
    plain_cloud, plain_view, tiny_rig, on_body
):
    """Else they would stand out above a body that is narrower."""
    wide = torch.full(on_body.shape, CLOTH)
    rows = place(plain_cloud, plain_view, tiny_rig)[:, 1]
    chin = plain_view.landmarks[CHIN, 1] + NECK * plain_view.eye_distance
    skin = (plain_cloud.kinds == SKIN) & (rows > chin)
    below = ((plain_cloud.kinds == CLOTH) | skin) & (rows > len(on_body))
    ended = end_with_photograph(plain_cloud, plain_view, tiny_rig, wide)
    assert (~on_body[-10:]).float().mean() > WIDER
    assert torch.equal(ended.means, plain_cloud.means[~below])
    narrow = torch.where(on_body, CLOTH, -1)
    assert len(end_with_photograph(plain_cloud, plain_view, tiny_rig, narrow)) == len(plain_cloud)


def test_a_photograph_may_end_within_its_frame(plain_cloud, view, tiny_rig):
    size = len(view.matte)
    end = int(0.85 * size)
    inside = (torch.arange(size) < end)[:, None] & view.inside
    rows = place(plain_cloud, view, tiny_rig)[:, 1]
    below = (plain_cloud.kinds == CLOTH) & (rows > end)
    cloth = torch.full(view.matte.shape, CLOTH)
    ended = end_with_photograph(plain_cloud, replace(view, inside=inside), tiny_rig, cloth)
    assert torch.equal(ended.means, plain_cloud.means[~below])


def test_below_the_photograph_shoulders_are_as_wide_as_at_its_edge(
    plain_cloud, plain_view, tiny_rig
):
    cloud, view = plain_cloud, plain_view
    size = len(view.matte)
    columns = torch.arange(size)
    narrow = (columns > 0.35 * size) & (columns < 0.65 * size)
    narrowed = replace(view, matte=view.matte * narrow)
    body = cloud.kinds == PointKind.CLOTH
    before = place(cloud, view, tiny_rig)
    below = body & (before[:, 1] > size)
    assert below.sum() > 50
    assert (before[below, 0] < 0.3 * size).any()
    after = place(keep_in_matte(cloud, narrowed, tiny_rig), view, tiny_rig)
    assert after[below, 0].min() > 0.33 * size
    assert after[below, 0].max() < 0.67 * size
    assert (after[below, 1] > size - 6).all(), "they stay below"


def test_generated_points_do_not_hang_below_the_body(tiny_rig):
    rest = tiny_rig.v_template
    kinds = find_face_kinds(tiny_rig)
    face = int(kinds.is_hem.nonzero()[0])
    corners = rest[tiny_rig.faces[face]]
    low = corners[corners[:, 1].argmin()]
    down = low - corners.mean(0)
    places = torch.stack([corners.mean(0), low + down / down.norm() * 0.02])
    points = CanonicalPoints(places, torch.tensor([face, face]))
    adopted = adopt_points(points, tiny_rig, rest, kinds, 1.0, tolerance=1.5e-3)
    assert torch.equal(adopted.means, places[:1])


def test_beside_a_turned_photograph_there_is_no_picture(portrait, portrait_fit):
    """Its corners repeat its border: nobody is there, and nothing ends there."""
    end = int(portrait.landmarks[CHIN, 1]) + 40
    short = replace(portrait, pixels=portrait.pixels[:end], matte=portrait.matte[:end])
    camera = replace(portrait_fit.cameras, height=end)
    tracked, level = (
        TrackedPortrait(replace(short, roll=roll), portrait_fit.rig_params, camera)
        for roll in (0.4, 0.0)
    )
    turned, straight = tracked.view(128), level.view(128)
    edge = [int(row) for row in (turned.inside * torch.arange(1, 129)[:, None]).amax(0)]
    assert len(set(edge)) > 20, "the lower edge is slanted"
    assert (turned.matte[~turned.inside] == 0).all()
    assert len({int(r) for r in (straight.inside * torch.arange(1, 129)[:, None]).amax(0)}) < 4
