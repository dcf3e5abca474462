# SPDX-License-Identifier: Apache-2.0
"""From canonical space into one photograph and back (paper Eq. 5), for points of one pose.

In a fixed pose Eq. 5 is affine in the place of a point at rest, so that both ways are cheap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.rotations import matrix_to_quat, nearest_rotation, quat_multiply
from ..geometry.structures import CanonicalPoints, Gaussians, RigParams, TensorRecord
from ..geometry.triangles import barycentric_coordinates, interpolate_corners
from ..rigs.binding import bind_points
from ..rigs.head_rig import HeadRig
from ..rigs.skinning import SkinnedPoints, skin_points
from ..rigs.stretching import lay_axes, stretch_axes


@dataclass(frozen=True)
class Placement(TensorRecord):
    """How each point goes from rest into the pose: `linear @ means + offsets`."""

    linear: Tensor  # [N, 3, 3]
    offsets: Tensor  # [N, 3] metres
    quats: Tensor  # [N, 4] the rotation in `linear`
    rest_corners: Tensor  # [N, 3, 3] the face of each point, metres
    corners: Tensor  # [N, 3, 3] the same in the pose

    def pose_means(self, means: Tensor) -> Tensor:
        """Posed places of points at rest, metres. [N, 3]"""
        return torch.einsum("nij,nj->ni", self.linear, means) + self.offsets

    def rest_vectors(self, vectors: Tensor) -> Tensor:
        """Displacements in the pose as displacements at rest. [N, 3]"""
        return torch.linalg.solve(self.linear, vectors[..., None])[..., 0]

    def pose_normals(self, normals: Tensor) -> Tensor:
        """Directions at rest, turned with their points. [N, 3]"""
        turned = torch.einsum("nij,nj->ni", self.linear, normals)
        return torch.nn.functional.normalize(turned, dim=-1)

    def pose_gaussians(self, gaussians: Gaussians) -> Gaussians:
        """The gaussians in the pose, grown where their faces stretch; differentiable."""
        axes = lay_axes(gaussians.quats.detach(), self.rest_corners)
        return Gaussians(
            means=self.pose_means(gaussians.means),
            quats=quat_multiply(self.quats, gaussians.quats),
            scales=gaussians.scales * stretch_axes(axes, self.corners),
            opacities=gaussians.opacities,
            colors=gaussians.colors,
        )


@torch.no_grad()
def place_points(points: CanonicalPoints, rig: HeadRig, rig_params: RigParams) -> Placement:
    """The placement of points by one frame of parameters."""
    rest = rig.canonical_vertices(rig_params.betas)[0]
    bound = bind_points(points, rig, rest)
    own = rig.faces[points.bindings]
    return _place(bound, rig, rig_params, rest[own], rig(rig_params)[0][own])


def _place(
    bound: SkinnedPoints, rig: HeadRig, rig_params: RigParams, rest_corners: Tensor, corners: Tensor
) -> Placement:
    posed, linear = skin_points(bound, rig_params.expression, rig.joint_motion(rig_params))
    posed, linear = posed[0], linear[0]
    offsets = posed - torch.einsum("nij,nj->ni", linear, bound.means)
    quats = matrix_to_quat(nearest_rotation(linear))
    return Placement(linear, offsets, quats, rest_corners, corners)


@torch.no_grad()
def rest_points(
    posed: Tensor, bindings: Tensor, rig: HeadRig, rig_params: RigParams
) -> tuple[Tensor, Placement]:
    """Places at rest of points that are known in the pose.

    Args:
        posed: Metres. [N, 3]
        bindings: The face of each. [N]
        rig: Of the bindings.
        rig_params: One frame.

    Returns:
        Means at rest, metres [N, 3]; their placement.
    """
    rest = rig.canonical_vertices(rig_params.betas)[0]
    corners = rig(rig_params)[0][rig.faces[bindings]]
    barycentric = barycentric_coordinates(posed, corners)
    means = interpolate_corners(rest, rig.faces, bindings, barycentric)
    # What a point inherits depends on where it lies at rest, which is what is sought.
    for _ in range(2):
        placement = place_points(CanonicalPoints(means, bindings), rig, rig_params)
        means = torch.linalg.solve(placement.linear, (posed - placement.offsets)[..., None])[..., 0]
    return means, place_points(CanonicalPoints(means, bindings), rig, rig_params)
