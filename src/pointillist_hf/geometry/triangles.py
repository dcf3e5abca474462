# SPDX-License-Identifier: Apache-2.0
"""Triangles: local frames, barycentric coordinates, surface samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def triangle_frames(corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rigid frame and size of each triangle, as GaussianAvatars defines them (paper Sec. 3.1).

    The columns of the rotation are the first edge, the face normal, and their cross product; the
    size is the mean of the first edge and the height over it.

    Args:
        corners: Metres. [..., 3, 3], corner then coordinate.

    Returns:
        Rotations [..., 3, 3], centroids in metres [..., 3], sizes in metres [...].
    """
    first, second = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    edge = normalize(first, dim=-1, eps=1e-10)
    normal = normalize(torch.linalg.cross(edge, second), dim=-1, eps=1e-10)
    in_plane = torch.linalg.cross(edge, normal)
    height = (in_plane * second).sum(-1).abs()
    return (
        torch.stack([edge, normal, in_plane], dim=-1),
        corners.mean(-2),
        (first.norm(dim=-1) + height) / 2,
    )


def barycentric_coordinates(points: Tensor, corners: Tensor) -> Tensor:
    """Barycentric coordinates of the points' projections onto the planes of their triangles.

    Coordinates of a projection outside its triangle are clamped to zero and renormalised, so that
    the result can interpolate vertex attributes.

    Args:
        points: Metres. [..., 3]
        corners: The triangle of each point, metres. [..., 3, 3]

    Returns:
        Non-negative, summing to one. [..., 3]
    """
    first, second = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    offset = points - corners[..., 0, :]
    d00, d01, d11 = (first * first).sum(-1), (first * second).sum(-1), (second * second).sum(-1)
    d20, d21 = (offset * first).sum(-1), (offset * second).sum(-1)
    area = (d00 * d11 - d01 * d01).clamp_min(torch.finfo(points.dtype).tiny)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    weights = torch.stack([1 - v - w, v, w], dim=-1).clamp_min(0)
    return weights / weights.sum(-1, keepdim=True)


def interpolate_corners(
    attributes: Tensor, faces: Tensor, bindings: Tensor, barycentric: Tensor
) -> Tensor:
    """Vertex attributes carried to points by their barycentric coordinates (paper Eq. 5).

    Args:
        attributes: One value per vertex, of any shape. [V, ...]
        faces: Vertex indices. [F, 3]
        bindings: The face of each point. [N]
        barycentric: [N, 3]

    Returns:
        [N, ...]
    """
    return torch.einsum("nk,nk...->n...", barycentric, attributes[faces[bindings]])


def face_areas(vertices: Tensor, faces: Tensor) -> Tensor:
    """Areas in square metres. [V, 3], [F, 3] -> [F]"""
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2


def sample_surface(weights: Tensor, num_samples: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Seeded random places on a mesh.

    Args:
        weights: Probability mass of each face, not normalised; areas give uniform samples. [F]
        num_samples: P.
        seed: The same seed gives the same places on every machine.

    Returns:
        Face indices [P], barycentric coordinates [P, 3].
    """
    generator = torch.Generator().manual_seed(seed)
    face_ids = torch.multinomial(
        weights.cpu().double(), num_samples, replacement=True, generator=generator
    )
    u, v = torch.rand(2, num_samples, generator=generator)
    root = u.sqrt()
    return face_ids, torch.stack([1 - root, root * (1 - v), root * v], dim=-1)
