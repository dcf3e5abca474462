# SPDX-License-Identifier: Apache-2.0
"""How much stands off the skin, and in which cell."""

import itertools
import math

import torch

from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.rigs.cloud_layout import compare_layouts, count_cells, find_cells

CUBE = {"cube_center": (0.0, -0.035, -0.03), "cube_half_extent": 0.25}


def count_layout(points, rig, betas, size):
    return count_cells(find_cells(points, rig, betas, size, **CUBE), size)[0]


def cloud_on(rig, betas, heights):
    """A point over the middle of each face, so many metres off it."""
    means = rig.canonical_vertices(betas[None])[0][rig.faces].mean(1)
    normals = rig.face_anchors(betas[None])[0, :, 3:]
    return CanonicalPoints(means + heights[:, None] * normals, torch.arange(rig.num_faces))


def test_skin_is_not_counted_and_hair_is_where_a_loop_finds_it(tiny_rig):
    betas, size = torch.randn(tiny_rig.num_betas), 4
    heights = torch.zeros(tiny_rig.num_faces)
    assert count_layout(cloud_on(tiny_rig, betas, heights), tiny_rig, betas, size).sum() == 0
    heights[::3] = 0.01
    points = cloud_on(tiny_rig, betas, heights)
    expected = torch.zeros(size, size, size, dtype=torch.long)
    low = [c - CUBE["cube_half_extent"] for c in CUBE["cube_center"]]
    for point in points.means[::3].tolist():
        x, y, z = (
            int((p - low_edge) / (2 * CUBE["cube_half_extent"]) * size)
            for p, low_edge in zip(point, low, strict=True)
        )
        expected[y, z, x] += 1
    found = count_layout(points, tiny_rig, betas, size)
    assert torch.equal(found, expected.flatten(1))
    assert found.sum() == len(heights[::3])


def test_points_outside_the_cube_count_in_its_outermost_cells(tiny_rig):
    betas = torch.zeros(tiny_rig.num_betas)
    point = CanonicalPoints(torch.tensor([[0.0, 5.0, -5.0]]), torch.tensor([0]))
    found = count_layout(point, tiny_rig, betas, 3).reshape(3, 3, 3)
    assert found.nonzero().tolist() == [[2, 0, 1]]


def test_layouts_are_compared_at_every_coarseness():
    """By hand: roots of all cells, of eighths of the cube, and of the whole."""
    torch.manual_seed(0)
    layouts, wanted = torch.poisson(torch.full((3, 4, 16), 2.0)), torch.rand(4, 16)
    found = compare_layouts(layouts, wanted)
    for layout, distance in zip(layouts, found, strict=True):
        expected = 0.0
        for step in (1, 2, 4):
            for corner in itertools.product(range(0, 4, step), repeat=3):
                block = tuple(slice(low, low + step) for low in corner)
                sums = [float(one.reshape(4, 4, 4)[block].sum()) for one in (layout, wanted)]
                first, second = (math.sqrt(value + 3 / 8) for value in sums)
                expected += (first - second) ** 2
        assert abs(float(distance) - expected) < 1e-3
    assert compare_layouts(wanted[None], wanted) == 0
    assert compare_layouts(torch.ones(1, 3, 9), torch.zeros(3, 9)) > 0


def test_what_is_near_its_place_is_better_than_far_off_and_than_nothing():
    wanted = torch.zeros(4, 4, 4)
    wanted[3, 1, 1] = 50
    others = [wanted, wanted.roll(-1, dims=0), wanted.roll(-3, dims=0)]
    found = compare_layouts(torch.stack(others).flatten(2), wanted.flatten(1))
    assert found[0] == 0
    assert found[0] < found[1] < found[2]
    assert found[1] < compare_layouts(torch.zeros(1, 4, 16), wanted.flatten(1))


def test_groups_are_counted_apart():
    cells, groups = torch.randint(-1, 27, (200,)), torch.randint(4, (200,))
    found = count_cells(cells, 3, groups, 4)
    for group in range(4):
        assert torch.equal(found[group], count_cells(cells[groups == group], 3)[0])
    assert found.sum() == (cells >= 0).sum()
