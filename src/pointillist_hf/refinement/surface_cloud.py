# SPDX-License-Identifier: Apache-2.0
"""Discs on surfaces: the shape of a splat cloud before it has colours.

Every disc lies in its surface, the third axis of its rotation along the normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.rotations import matrix_to_quat
from ..geometry.structures import CanonicalPoints, Gaussians

EDGE = 1.9  # longest side of a piece over the spacing: pieces have about one spacing squared
REACH = 2.2  # radius of a disc over the standard deviation of its piece: neighbours blend
MIN_RADIUS, THICKNESS = 4e-4, 0.2  # metres; thickness over the smaller radius
MAX_SPLITS = 7  # of a face, whatever its size: 128 pieces


@dataclass(frozen=True)
class SurfaceCloud(CanonicalPoints):
    """N canonical points, each with a disc at rest."""

    quats: Tensor  # [N, 4] wxyz
    scales: Tensor  # [N, 3] metres
    normals: Tensor  # [N, 3] of the smooth surface below, which need not be those of the discs
    kinds: Tensor  # [N] `PointKind`

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, index: Tensor | slice) -> SurfaceCloud:
        return SurfaceCloud(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def points(self) -> CanonicalPoints:
        """The cloud without its discs."""
        return CanonicalPoints(self.means, self.bindings)

    def to_gaussians(self, colors: Tensor, opacity: float = 0.97) -> Gaussians:
        """Canonical gaussians in these colours [N, 3]."""
        opacities = self.means.new_full((len(self),), opacity)
        return Gaussians(self.means, self.quats, self.scales, opacities, colors)


def join_clouds(clouds: Sequence[SurfaceCloud]) -> SurfaceCloud:
    """One cloud of all points, in their order."""
    names = [f.name for f in fields(SurfaceCloud)]
    return SurfaceCloud(**{n: torch.cat([getattr(cloud, n) for cloud in clouds]) for n in names})


def split_faces(vertices: Tensor, faces: Tensor, spacings: Tensor) -> tuple[Tensor, Tensor]:
    """The faces in pieces of about equal size: the longest side is halved until it is short.

    Args:
        vertices: Metres. [V, 3]
        faces: [F, 3]
        spacings: Wanted between the centres of pieces, metres. [F]

    Returns:
        Face of each piece, in rising order [K]; barycentric coordinates of its corners [K, 3, 3].
    """
    face_ids = torch.arange(len(faces), device=faces.device)
    pieces = torch.eye(3).to(vertices).expand(len(faces), 3, 3)
    for _ in range(MAX_SPLITS):
        corners = pieces @ vertices[faces[face_ids]]
        lengths = (corners.roll(-1, 1) - corners).norm(dim=-1)
        long = lengths.amax(1) > EDGE * spacings[face_ids]
        if not long.any():
            break
        first = lengths[long].argmax(1)
        rows = torch.arange(len(first), device=faces.device)
        a, b, c = (pieces[long][rows, (first + k) % 3] for k in range(3))
        middle = (a + b) / 2
        halves = (torch.stack([a, middle, c], 1), torch.stack([middle, b, c], 1))
        face_ids = torch.cat([face_ids[~long], face_ids[long], face_ids[long]])
        pieces = torch.cat([pieces[~long], *halves])
    order = face_ids.argsort(stable=True)
    return face_ids[order], pieces[order]


def disc_shapes(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Discs that cover triangles.

    Args:
        corners: Metres. [N, 3, 3]

    Returns:
        Quaternions [N, 4], scales in metres [N, 3].
    """
    edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = normalize(torch.linalg.cross(edge, other), dim=-1, eps=1e-12)
    along = normalize(edge, dim=-1, eps=1e-12)
    across = torch.linalg.cross(normal, along)
    offset = corners - corners.mean(1, keepdim=True)
    u, v = (torch.einsum("nkc,nc->nk", offset, axis) for axis in (along, across))
    uu, vv, uv = (u * u).sum(1) / 12, (v * v).sum(1) / 12, (u * v).sum(1) / 12
    angle = 0.5 * torch.atan2(2 * uv, uu - vv)
    mean, apart = (uu + vv) / 2, (((uu - vv) / 2).square() + uv.square()).sqrt()
    first = angle.cos()[:, None] * along + angle.sin()[:, None] * across
    second = torch.linalg.cross(normal, first)
    radii = REACH * torch.stack([mean + apart, (mean - apart).clamp_min(0)], -1).sqrt()
    radii = radii.clamp_min(MIN_RADIUS)
    scales = torch.cat([radii, THICKNESS * radii.amin(1, keepdim=True)], dim=-1)
    return matrix_to_quat(torch.stack([first, second, normal], dim=-1)), scales


def smooth_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals of the vertices of a mesh, weighted by area. [V, 3], [F, 3] -> [V, 3]"""
    a, b, c = vertices[faces].unbind(1)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals.index_add_(0, faces[:, corner], torch.linalg.cross(b - a, c - a))
    return normalize(normals, dim=-1, eps=1e-12)


def frames_along(normals: Tensor, along: Tensor) -> Tensor:
    """Rotations whose first axis is near `along` and whose third is the normal. [N, 4]"""
    first = along - (along * normals).sum(-1, keepdim=True) * normals
    first = normalize(first, dim=-1, eps=1e-9)
    second = torch.linalg.cross(normals, first)
    return matrix_to_quat(torch.stack([first, second, normals], dim=-1))
