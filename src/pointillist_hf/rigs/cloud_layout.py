# SPDX-License-Identifier: Apache-2.0
"""What stands off the skin: hair, beards, lashes, glasses, and roughly where it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from ..geometry.structures import CanonicalPoints
from ..geometry.triangles import barycentric_coordinates
from .head_rig import HeadRig

# Farther from its face a point is hair, a beard, a lash, or worn. Metres.
OFF_SURFACE = 0.002
# Added to counts before their roots are taken; Anscombe, Biometrika 35 (1948).
SPREAD = 3 / 8


def measure_distances(points: CanonicalPoints, rig: HeadRig, betas: Tensor) -> Tensor:
    """From each point to the face it is bound to, on the head of `betas` [S], metres. [N]"""
    vertices = rig.canonical_vertices(betas[None])[0]
    corners = vertices[rig.faces[points.bindings]]
    weights = barycentric_coordinates(points.means, corners)
    return (torch.einsum("nk,nkc->nc", weights, corners) - points.means).norm(dim=-1)


def find_cells(
    points: CanonicalPoints,
    rig: HeadRig,
    betas: Tensor,
    size: int,
    *,
    cube_center: Sequence[float],
    cube_half_extent: float,
    tolerance: float = OFF_SURFACE,
) -> Tensor:
    """In which cell of a coarse grid each point stands off the skin.

    Args:
        points: Of a person.
        rig: That they are bound to.
        betas: Of the person. [S]
        size: Cells along an edge of the cube.
        cube_center: Of the tokenizer, metres.
        cube_half_extent: Of the tokenizer, metres.
        tolerance: Metres from the skin that are no standing off, such as what coarse bins add.

    Returns:
        Cells, slice by slice from the lowest; within a slice by z, then x. -1 on the skin. [N]
    """
    coords = (points.means - points.means.new_tensor(cube_center)) / cube_half_extent
    x, y, z = ((coords + 1) / 2 * size).long().clamp(0, size - 1).unbind(-1)
    stands = measure_distances(points, rig, betas) > tolerance
    return torch.where(stands, (y * size + z) * size + x, -1)


def count_cells(
    cells: Tensor, size: int, groups: Tensor | None = None, num_groups: int = 1
) -> Tensor:
    """The layout of a cloud: how many points stand off the skin in each cell.

    Args:
        cells: Of `find_cells`. [N]
        size: Cells along an edge of the cube.
        groups: Of the points, which are counted apart. [N]
        num_groups: How many there are.

    Returns:
        [num_groups, size, size^2]
    """
    groups = torch.zeros_like(cells) if groups is None else groups
    stands = cells >= 0
    places = groups[stands] * size**3 + cells[stands]
    return places.bincount(minlength=num_groups * size**3).reshape(num_groups, size, size**2)


def compare_layouts(layouts: Tensor, wanted: Tensor) -> Tensor:
    """How far layouts are from one that is wanted: squared differences of the square roots.

    Of a number that is drawn at random, the square root strays as far whatever the number is; under
    their likelihood, a few points in a cell that should be empty would outweigh all others. Cells
    are compared by themselves, and by twos along each edge as far as that goes: how much there is
    counts as where it is.

    Args:
        layouts: Counts of K clouds. [K, L, L^2]
        wanted: Counts, or what they are expected to be. [L, L^2]

    Returns:
        [K]
    """
    size = len(wanted)
    cells = torch.cat([layouts, wanted[None]]).unflatten(-1, (size, size))[:, None]
    total = cells.new_zeros(len(layouts))
    while True:
        roots = (cells + SPREAD).sqrt()
        total = total + (roots[:-1] - roots[-1:]).square().sum((1, 2, 3, 4))
        if cells.shape[-1] % 2:
            return total
        cells = 8 * avg_pool3d(cells, 2)
