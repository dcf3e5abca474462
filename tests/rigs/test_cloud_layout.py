# SPDX-License-Identifier: Apache-2.0
"""How much stands off the skin, and in which cell."""

import torch

from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.rigs.cloud_layout import count_layout

CUBE = {"cube_center": (0.0, -0.035, -0.03), "cube_half_extent": 0.25}


def cloud_on(rig, betas, heights):
    """A point over the middle of each face, so many metres off it."""
    means = rig.canonical_vertices(betas[None])[0][rig.faces].mean(1)
    normals = rig.face_anchors(betas[None])[0, :, 3:]
    return CanonicalPoints(means + heights[:, None] * normals, torch.arange(rig.num_faces))


def test_skin_is_not_counted_and_hair_is_where_a_loop_finds_it(tiny_rig):
    betas, size = torch.randn(tiny_rig.num_betas), 4
    heights = torch.zeros(tiny_rig.num_faces)
    assert (
        count_layout(cloud_on(tiny_rig, betas, heights), tiny_rig, betas, size, **CUBE).sum() == 0
    )
    heights[::3] = 0.01
    points = cloud_on(tiny_rig, betas, heights)
    expected = torch.zeros(size, size, size)
    low = [c - CUBE["cube_half_extent"] for c in CUBE["cube_center"]]
    for point in points.means[::3].tolist():
        x, y, z = (
            int((p - low_edge) / (2 * CUBE["cube_half_extent"]) * size)
            for p, low_edge in zip(point, low, strict=True)
        )
        expected[y, z, x] += 1
    found = count_layout(points, tiny_rig, betas, size, **CUBE)
    assert torch.equal(found, expected.flatten(1))
    assert found.sum() == len(heights[::3])


def test_points_outside_the_cube_count_in_its_outermost_cells(tiny_rig):
    betas = torch.zeros(tiny_rig.num_betas)
    point = CanonicalPoints(torch.tensor([[0.0, 5.0, -5.0]]), torch.tensor([0]))
    found = count_layout(point, tiny_rig, betas, 3, **CUBE).reshape(3, 3, 3)
    assert found.nonzero().tolist() == [[2, 0, 1]]
