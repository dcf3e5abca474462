# SPDX-License-Identifier: Apache-2.0
"""What stands off the skin: hair, beards, lashes, glasses, and roughly where it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..geometry.structures import CanonicalPoints
from ..geometry.triangles import barycentric_coordinates
from .head_rig import HeadRig

# Farther from its face a point is hair, a beard, a lash, or worn. Metres.
OFF_SURFACE = 0.002


def measure_distances(points: CanonicalPoints, rig: HeadRig, betas: Tensor) -> Tensor:
    """From each point to the face it is bound to, on the head of `betas` [S], metres. [N]"""
    vertices = rig.canonical_vertices(betas[None])[0]
    corners = vertices[rig.faces[points.bindings]]
    weights = barycentric_coordinates(points.means, corners)
    return (torch.einsum("nk,nkc->nc", weights, corners) - points.means).norm(dim=-1)


def count_layout(
    points: CanonicalPoints,
    rig: HeadRig,
    betas: Tensor,
    size: int,
    *,
    cube_center: Sequence[float],
    cube_half_extent: float,
    tolerance: float = OFF_SURFACE,
) -> Tensor:
    """The layout of a cloud: how many points stand off the skin in each cell of a coarse grid.

    Args:
        points: Of a person.
        rig: That they are bound to.
        betas: Of the person. [S]
        size: Cells along an edge of the cube.
        cube_center: Of the tokenizer, metres.
        cube_half_extent: Of the tokenizer, metres.
        tolerance: Metres from the skin that are no standing off, such as what coarse bins add.

    Returns:
        Counts, slice by slice from the lowest; within a slice by z, then x. [size, size^2]
    """
    standing = points.means[measure_distances(points, rig, betas) > tolerance]
    coords = (standing - standing.new_tensor(cube_center)) / cube_half_extent
    x, y, z = ((coords + 1) / 2 * size).long().clamp(0, size - 1).unbind(-1)
    counts = ((y * size + z) * size + x).bincount(minlength=size**3)
    return counts.to(points.means.dtype).reshape(size, size**2)
