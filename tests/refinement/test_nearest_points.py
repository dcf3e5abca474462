# SPDX-License-Identifier: Apache-2.0
"""The compiled search for nearest points, against all distances in double precision."""

import pytest
import torch

from pointillist_hf.refinement.neighbors import nearest_points


def random_places(num, size):
    return torch.randn(num, size)


def clusters(num, size):
    """Dense here, thin there: some queries must look far."""
    return torch.randn(num, size) * torch.rand(num, 1) ** 4


def line(num, size):
    """All boxes are flat, but for one side."""
    return torch.rand(num, 1) * torch.ones(size)


def grid(num, size):
    """Many equally far, and the same places many times."""
    return torch.randint(5, (num, size)).float()


def one_place(num, size):
    return torch.full((num, size), 0.25)


def look_at_all(queries, sources, count):
    """Distances and indices of the nearest, of equally near ones the first."""
    every = (queries.double()[:, None] - sources.double()).square().sum(-1)
    squares, indices = every.sort(dim=1, stable=True)
    return squares[:, :count].sqrt(), indices[:, :count]


@pytest.mark.parametrize("places", [random_places, clusters, line, grid, one_place])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("num_sources", [1, 2, 16, 17, 33, 700])
def test_neighbors_are_those_of_a_full_search(places, size, num_sources):
    sources = places(num_sources, size)
    asked = {"others": places(90, size), "the same": sources, "far away": 1e4 + places(9, size)}
    for name, queries in asked.items():
        for count in (1, 7, 24, num_sources + 1):
            distances, indices = nearest_points(queries, sources, count)
            expected, first = look_at_all(queries, sources, count)
            assert torch.equal(indices, first), (name, count)
            assert distances.dtype == torch.float32
            torch.testing.assert_close(distances.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1, 5])
def test_any_number_of_coordinates(size):
    queries, sources = clusters(50, size), clusters(400, size)
    assert torch.equal(nearest_points(queries, sources, 6)[1], look_at_all(queries, sources, 6)[1])


def test_many_sources():
    queries, sources = clusters(100, 3), clusters(20_000, 3)
    assert torch.equal(nearest_points(queries, sources, 5)[1], look_at_all(queries, sources, 5)[1])


def test_each_point_is_the_nearest_to_itself():
    points = torch.randn(3000, 3)
    distances, indices = nearest_points(points, points, 3)
    assert torch.equal(indices[:, 0], torch.arange(3000))
    assert not distances[:, 0].any()
    assert (distances.diff(dim=1) >= 0).all()


def test_small_differences_far_from_the_origin_are_kept_in_double_precision():
    points = 1 + 1e-12 * torch.randperm(200).double()[:, None]
    distances, indices = nearest_points(points, points, 2)
    assert distances.dtype == torch.float64
    assert torch.equal(indices[:, 0], torch.arange(200))
    torch.testing.assert_close(
        distances[:, 1], torch.full((200,), 1e-12).double(), rtol=1e-3, atol=0
    )


def test_neighbors_of_views_are_those_of_copies():
    points = torch.randn(3, 500).T  # coordinates do not lie side by side
    found = nearest_points(points[::2], points[1::2], 4)
    copied = nearest_points(points[::2].clone(), points[1::2].clone().contiguous(), 4)
    assert all(torch.equal(a, b) for a, b in zip(found, copied, strict=True))
    leaf = points.contiguous().requires_grad_()
    assert torch.equal(nearest_points(leaf[::2], leaf[1::2], 4)[1], found[1])


def test_neighbors_beyond_the_number_of_sources_and_of_nobody():
    distances, indices = nearest_points(torch.zeros(2, 3), torch.eye(3), 8)
    assert distances.shape == (2, 3)
    assert indices.tolist() == [[0, 1, 2]] * 2
    distances, indices = nearest_points(torch.zeros(0, 3), torch.eye(3), 2)
    assert distances.shape == indices.shape == (0, 2)
    assert indices.dtype == torch.int64
