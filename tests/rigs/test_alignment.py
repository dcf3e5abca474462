# SPDX-License-Identifier: Apache-2.0
"""Clouds laid onto another shape of the head."""

import pytest
import torch

from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.geometry.triangles import barycentric_coordinates
from pointillist_hf.rigs.alignment import align_to_shape, fit_betas


def draw_betas(rig, seed):
    return torch.randn(rig.num_betas, generator=torch.Generator().manual_seed(seed))


def points_on(rig, betas, count=600, seed=0):
    """Random places of the surface of a head."""
    g = torch.Generator().manual_seed(seed)
    bindings = torch.randint(rig.num_faces, (count,), generator=g)
    share = torch.rand(count, 3, generator=g)
    corners = rig.canonical_vertices(betas[None])[0][rig.faces[bindings]]
    means = torch.einsum("nk,nkc->nc", share / share.sum(-1, keepdim=True), corners)
    return CanonicalPoints(means, bindings)


def distances(points, rig, betas):
    """From each point to the triangle it is bound to, metres. [N]"""
    corners = rig.canonical_vertices(betas[None])[0][rig.faces[points.bindings]]
    share = barycentric_coordinates(points.means, corners)
    return (torch.einsum("nk,nkc->nc", share, corners) - points.means).norm(dim=-1)


def vertex_error(rig, first, second):
    """Root mean square distance of the vertices of two identities, metres."""
    difference = rig.canonical_vertices(first[None]) - rig.canonical_vertices(second[None])
    return difference.square().sum(-1).mean().sqrt()


@pytest.mark.parametrize("seed", range(3))
def test_the_shape_is_found_by_the_bindings(seed, tiny_rig):
    betas = draw_betas(tiny_rig, seed)
    found = fit_betas(points_on(tiny_rig, betas, seed=seed), tiny_rig)
    start = vertex_error(tiny_rig, betas, torch.zeros_like(betas))
    assert vertex_error(tiny_rig, betas, found) < start / 3


def test_a_cloud_moves_onto_another_head(tiny_rig):
    old, new = draw_betas(tiny_rig, 1), draw_betas(tiny_rig, 2)
    points = points_on(tiny_rig, old)
    moved = align_to_shape(points, tiny_rig, new)
    assert torch.equal(moved.bindings, points.bindings)
    before, after = (distances(p, tiny_rig, new).mean() for p in (points, moved))
    assert after < 0.3 * before
    assert after < 0.001


def test_a_cloud_on_its_own_head_stays(tiny_rig):
    betas = draw_betas(tiny_rig, 3)
    points = points_on(tiny_rig, betas)
    moved = align_to_shape(points, tiny_rig, betas)
    shift = (moved.means - points.means).norm(dim=-1).mean()
    assert shift < 0.3 * vertex_error(tiny_rig, betas, torch.zeros_like(betas))


def test_hair_follows_but_has_no_say(tiny_rig):
    betas = draw_betas(tiny_rig, 4)
    skin = points_on(tiny_rig, betas)
    hair = points_on(tiny_rig, betas, count=300, seed=9)
    far = CanonicalPoints(hair.means + torch.tensor([0.0, 0.1, 0.0]), hair.bindings)
    both = CanonicalPoints(
        torch.cat([skin.means, far.means]), torch.cat([skin.bindings, far.bindings])
    )
    torch.testing.assert_close(fit_betas(both, tiny_rig), fit_betas(skin, tiny_rig))
    moved = align_to_shape(both, tiny_rig, draw_betas(tiny_rig, 5))
    alone = align_to_shape(skin, tiny_rig, draw_betas(tiny_rig, 5))
    torch.testing.assert_close(moved.means[:600], alone.means)
    shift = moved.means - both.means
    assert shift[600:].norm(dim=-1).mean() > 0.001


def test_outliers_do_little(tiny_rig):
    betas = draw_betas(tiny_rig, 6)
    points = points_on(tiny_rig, betas)
    means = points.means.clone()
    means[::10] += 0.012  # a tenth of the points, 2 cm off
    bent = fit_betas(CanonicalPoints(means, points.bindings), tiny_rig)
    shift = vertex_error(tiny_rig, bent, fit_betas(points, tiny_rig))
    assert shift < 0.0015


def test_without_points_near_the_skin_nothing_is_known(tiny_rig):
    points = CanonicalPoints(torch.full((5, 3), 0.2), torch.arange(5))
    assert fit_betas(points, tiny_rig).abs().max() == 0
    nobody = CanonicalPoints(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert len(align_to_shape(nobody, tiny_rig, draw_betas(tiny_rig, 0))) == 0


def test_bindings_of_another_rig_are_refused(tiny_rig):
    points = CanonicalPoints(torch.zeros(1, 3), torch.tensor([tiny_rig.num_faces]))
    with pytest.raises(ValueError, match="`bindings` must be faces"):
        fit_betas(points, tiny_rig)
