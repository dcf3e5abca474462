# SPDX-License-Identifier: Apache-2.0
"""Points of a rig posed by the unknowns of a landmark fit, with exact derivatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..geometry.rotations import axis_angle_to_matrix
from .head_state import HeadState
from .rig_basis import MOVING_JOINTS, JointBasis, PointBasis


def pose_points(basis: PointBasis, joints: JointBasis, state: HeadState) -> Tensor:
    """Positions in the world, metres. [T, N, 3]"""
    turned, away, rest = _rest_points(basis, joints, state)
    weights = basis.lbs_weights[..., MOVING_JOINTS].expand(len(rest), -1, -1)
    in_head = rest + torch.einsum("tnj,tjab,tnjb->tna", weights, turned, away)
    return torch.einsum("tab,tnb->tna", state.rotations, in_head) + state.shift[:, None]


def pose_jacobian(basis: PointBasis, joints: JointBasis, state: HeadState) -> tuple[Tensor, Tensor]:
    """Positions in the world, metres [T, N, 3], and their derivatives [T, N, 3, U]."""
    turned, away, rest = _rest_points(basis, joints, state)
    weights = basis.lbs_weights[..., MOVING_JOINTS].expand(len(rest), -1, -1)
    blended = torch.einsum("tnj,tjab->tnab", weights, turned)
    identity = torch.eye(3).to(rest)
    shape, expression = (
        (identity + blended) @ directions
        - torch.einsum("tnj,tjas->tnas", weights, torch.einsum("tjab,jbs->tjas", turned, of_joints))
        for directions, of_joints in (
            (basis.shapedirs, joints.shapedirs),
            (basis.exprdirs, joints.exprdirs),
        )
    )
    by_angle = _joint_derivatives(state)
    swung = torch.einsum("tnj,atjxy,tnjy->tnjxa", weights, by_angle, away)
    corrected = (identity + blended)[:, :, None] @ _corrective_derivatives(basis, by_angle)
    jaw, left_eye, right_eye = (swung + corrected).unbind(2)
    in_head = torch.cat([shape, expression, jaw, left_eye + right_eye], dim=-1)
    by_form = torch.einsum("tab,tnbu->tnau", state.rotations, in_head)

    places = rest + torch.einsum("tnj,tjab,tnjb->tna", weights, turned, away)
    places = torch.einsum("tab,tnb->tna", state.rotations, places)
    by_shift = identity.expand(*rest.shape, 3)
    jacobian = torch.cat([by_form, -skew(places), by_shift], dim=-1)
    return places + state.shift[:, None], jacobian


def skew(vectors: Tensor) -> Tensor:
    """Matrices of the cross product from the left. [..., 3] -> [..., 3, 3]"""
    x, y, z = vectors.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def _rest_points(
    basis: PointBasis, joints: JointBasis, state: HeadState
) -> tuple[Tensor, Tensor, Tensor]:
    """What moves places in head space.

    Returns:
        Rotations of jaw, left and right eye minus identity [T, 3, 3, 3], places relative to those
        joints, metres [T, N, 3, 3], and places before the joints turn, metres [T, N, 3].
    """
    frames = len(state.betas)
    turned = axis_angle_to_matrix(_joint_angles(state)) - torch.eye(3).to(state.jaw)
    # The neck, the first joint with correctives, is straight.
    features = pad(turned.flatten(1), (9, 0))
    rest = basis.means.expand(frames, -1, -1)
    for directions, coefficients in (
        (basis.shapedirs, state.betas),
        (basis.exprdirs, state.expression),
        (basis.posedirs, features),
    ):
        directions = directions.expand(frames, -1, -1, -1)
        rest = rest + torch.einsum("tnck,tk->tnc", directions, coefficients)
    centres = joints.means + torch.einsum("jcs,ts->tjc", joints.shapedirs, state.betas)
    centres = centres + torch.einsum("jce,te->tjc", joints.exprdirs, state.expression)
    return turned, rest[:, :, None] - centres[:, None], rest


def _joint_angles(state: HeadState) -> Tensor:
    """Axis-angle of jaw, left and right eye. [T, 3, 3]"""
    angles = torch.stack([state.jaw, state.gaze, state.gaze], dim=1)
    return pad(angles, (0, 1))


def _joint_derivatives(state: HeadState) -> Tensor:
    """Derivatives of the rotations of jaw, left and right eye by pitch and yaw. [2, T, 3, 3, 3]"""
    angles = _joint_angles(state)
    axes = _left_jacobian(angles)[..., :2].movedim(-1, 0)
    return skew(axes) @ axis_angle_to_matrix(angles)


def _left_jacobian(vectors: Tensor) -> Tensor:
    """How a rotation turns when its axis-angle vector changes. [..., 3] -> [..., 3, 3]

    Column i is the axis of the small rotation that follows when component i grows.
    """
    squared = vectors.square().sum(-1)[..., None, None]
    small = squared < 1e-6
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    first = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    second = torch.where(small, 1 / 6 - squared / 120, (angle - angle.sin()) / (safe * angle))
    cross = skew(vectors)
    return torch.eye(3).to(vectors) + first * cross + second * cross @ cross


def _corrective_derivatives(basis: PointBasis, by_angle: Tensor) -> Tensor:
    """How correctives move places as jaw, left and right eye turn. [T, N, 3 joints, 3, 2]"""
    directions = basis.posedirs[..., 9:].unflatten(-1, (3, 9))
    changes = by_angle.flatten(3)  # [2, T, 3 joints, 9]
    directions = directions.expand(changes.shape[1], -1, -1, -1, -1)
    return torch.einsum("tncjf,atjf->tnjca", directions, changes)
