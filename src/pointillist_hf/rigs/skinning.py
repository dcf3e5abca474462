# SPDX-License-Identifier: Apache-2.0
"""Blendshapes and linear blend skinning (paper Sec. 4.3), one code path for vertices and points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.rotations import axis_angle_to_matrix
from ..geometry.structures import TensorRecord


@dataclass(frozen=True)
class SkinnedPoints(TensorRecord):
    """Places that move with the head: what FLAME stores for each vertex, for any N places."""

    means: Tensor  # [N, 3] at rest: zero pose, zero expression; metres
    exprdirs: Tensor  # [N, 3, E] metres
    posedirs: Tensor  # [N, 3, 9 (J - 1)] metres
    lbs_weights: Tensor  # [N, J] sum to one


@dataclass(frozen=True)
class JointMotion(TensorRecord):
    """What the joints do in T frames."""

    transforms: Tensor  # [T, J, 3, 4] from the rest pose to the frame
    pose_features: Tensor  # [T, 9 (J - 1)] rotation minus identity of every joint but the root


def move_joints(
    poses: Tensor, joints: Tensor, parents: Sequence[int], transl: Tensor
) -> JointMotion:
    """Runs the kinematic chain.

    Args:
        poses: Axis-angle, radians. [T, J, 3]
        joints: Rest positions, metres. [T, J, 3]
        parents: Index of each joint's parent, a lower one; -1 for the root.
        transl: Metres. [T, 3]
    """
    rotations = axis_angle_to_matrix(poses)
    world_rotations, world_positions = [rotations[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(parents[1:], start=1):
        bone = joints[:, joint] - joints[:, parent]
        offset = torch.einsum("tij,tj->ti", world_rotations[parent], bone)
        world_positions.append(world_positions[parent] + offset)
        world_rotations.append(world_rotations[parent] @ rotations[:, joint])
    turned = torch.stack(world_rotations, dim=1)
    shift = torch.stack(world_positions, dim=1) - torch.einsum("tjab,tjb->tja", turned, joints)
    features = (rotations[:, 1:] - torch.eye(3).to(rotations)).flatten(1)
    return JointMotion(
        transforms=torch.cat([turned, (shift + transl[:, None])[..., None]], dim=-1),
        pose_features=features,
    )


def skin_points(
    points: SkinnedPoints, expression: Tensor, motion: JointMotion
) -> tuple[Tensor, Tensor]:
    """Places and blended transforms of the points in every frame.

    Args:
        points: N points at rest.
        expression: [T, E]
        motion: T frames of joint motion.

    Returns:
        Positions in metres [T, N, 3]; the linear part of each point's blended transform
        [T, N, 3, 3], which is close to a rotation but is none where joints disagree.
    """
    offsets = torch.einsum("nce,te->tnc", points.exprdirs, expression)
    offsets = offsets + torch.einsum("ncp,tp->tnc", points.posedirs, motion.pose_features)
    blended = torch.einsum("nj,tjab->tnab", points.lbs_weights, motion.transforms)
    rotated = torch.einsum("tnab,tnb->tna", blended[..., :3], points.means + offsets)
    return rotated + blended[..., 3], blended[..., :3]
