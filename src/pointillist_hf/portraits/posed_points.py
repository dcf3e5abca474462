# SPDX-License-Identifier: Apache-2.0
"""Points of a rig posed by the unknowns of a landmark fit, with exact derivatives.

The neck stays straight, so the head turns as one: head space is the rig's space before the head is
turned, with jaw, eyes, identity and expression in place. Unknowns stand in the order of
`UNKNOWNS`; the derivative by `turn` is that of a small rotation of the world about its axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from ..geometry.structures import RigParams, TensorRecord
from ..geometry.triangles import interpolate_corners
from ..rigs.head_rig import HeadRig

JAW, LEFT_EYE, RIGHT_EYE = 2, 3, 4  # joints
MOVING_JOINTS = (JAW, LEFT_EYE, RIGHT_EYE)
NUM_POSE_UNKNOWNS = 10  # jaw 2, gaze 2, turn 3, shift 3


@dataclass(frozen=True)
class PointBasis(TensorRecord):
    """N places on a rig, or N in each of T frames: what a vertex is to FLAME."""

    means: Tensor  # [T or 1, N, 3] metres
    shapedirs: Tensor  # [T or 1, N, 3, S]
    exprdirs: Tensor  # [T or 1, N, 3, E]
    posedirs: Tensor  # [T or 1, N, 3, 36]
    lbs_weights: Tensor  # [T or 1, N, J]

    def gather(self, ids: Tensor) -> PointBasis:
        """The places chosen in each frame. [T, M] -> [T, M, ...]"""
        return PointBasis(
            self.means[0, ids],
            self.shapedirs[0, ids],
            self.exprdirs[0, ids],
            self.posedirs[0, ids],
            self.lbs_weights[0, ids],
        )


@dataclass(frozen=True)
class HeadState(TensorRecord):
    """The unknowns in T frames."""

    betas: Tensor  # [T, S]
    expression: Tensor  # [T, E]
    jaw: Tensor  # [T, 2] pitch and yaw, radians
    gaze: Tensor  # [T, 2] pitch and yaw of both eyes, radians
    rotations: Tensor  # [T, 3, 3] of the head
    shift: Tensor  # [T, 3] where the origin of head space comes to lie, metres

    def moved(self, step: Tensor) -> HeadState:
        """The state after a step of all unknowns. [T, U]"""
        betas, expression, jaw, gaze, turn, shift = self.split(step)
        return HeadState(
            betas=self.betas + betas,
            expression=self.expression + expression,
            jaw=self.jaw + jaw,
            gaze=self.gaze + gaze,
            rotations=axis_angle_to_matrix(turn) @ self.rotations,
            shift=self.shift + shift,
        )

    def split(self, unknowns: Tensor) -> tuple[Tensor, ...]:
        """betas, expression, jaw, gaze, turn and shift. [T, U]"""
        return unknowns.split([self.betas.shape[1], self.expression.shape[1], 2, 2, 3, 3], dim=1)

    def __getitem__(self, frames: slice) -> HeadState:
        return HeadState(**{name: value[frames] for name, value in vars(self).items()})


@dataclass(frozen=True)
class JointBasis(TensorRecord):
    """Where the jaw and the eyes turn."""

    means: Tensor  # [3, 3] metres
    shapedirs: Tensor  # [3, 3, S]
    exprdirs: Tensor  # [3, 3, E]


def build_joint_basis(rig: HeadRig, num_betas: int, num_expressions: int) -> JointBasis:
    """The jaw and the eyes of a rig, float64, with its first coefficients."""
    rows = rig.J_regressor[list(MOVING_JOINTS)].double()
    return JointBasis(
        means=rows @ rig.v_template.double(),
        shapedirs=torch.einsum("jv,vcs->jcs", rows, rig.shapedirs[..., :num_betas].double()),
        exprdirs=torch.einsum("jv,vce->jce", rows, rig.exprdirs[..., :num_expressions].double()),
    )


def build_vertex_basis(
    rig: HeadRig, ids: Tensor, num_betas: int, num_expressions: int
) -> PointBasis:
    """Vertices of a rig, float64, with its first coefficients. [N] -> [1, N, ...]"""
    return PointBasis(
        rig.v_template[ids][None].double(),
        rig.shapedirs[ids][None, ..., :num_betas].double(),
        rig.exprdirs[ids][None, ..., :num_expressions].double(),
        rig.posedirs[ids][None].double(),
        rig.lbs_weights[ids][None].double(),
    )


def interpolate_basis(corners: PointBasis, barycentric: Tensor) -> PointBasis:
    """Points inside triangles from their corners, 3 for each. [1, 3 N, ...], [N, 3] -> [1, N, ...]"""
    faces = torch.arange(3 * len(barycentric), device=barycentric.device).reshape(-1, 3)
    bindings = torch.arange(len(barycentric), device=barycentric.device)
    return PointBasis(
        **{
            name: interpolate_corners(value[0], faces, bindings, barycentric.double())[None]
            for name, value in vars(corners).items()
        }
    )


def concatenate(first: PointBasis, second: PointBasis) -> PointBasis:
    """The places of both, one after the other."""
    pairs = {name: (value, getattr(second, name)) for name, value in vars(first).items()}
    return PointBasis(**{name: torch.cat(pair, dim=1) for name, pair in pairs.items()})


def joint_rotations(state: HeadState) -> tuple[Tensor, Tensor]:
    """Rotations of jaw, left and right eye [T, 3, 3, 3], and by pitch and yaw [2, T, 3, 3, 3]."""
    angles = torch.stack([state.jaw, state.gaze, state.gaze], dim=1)
    vectors = torch.cat([angles, torch.zeros_like(angles[..., :1])], dim=-1)
    rotations = axis_angle_to_matrix(vectors)
    axes = left_jacobian(vectors)[..., :2].movedim(-1, 0)
    return rotations, skew(axes) @ rotations


def left_jacobian(vectors: Tensor) -> Tensor:
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


def skew(vectors: Tensor) -> Tensor:
    """Matrices of the cross product from the left. [..., 3] -> [..., 3, 3]"""
    x, y, z = vectors.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).unflatten(-1, (3, 3))


def pose_points(basis: PointBasis, joints: JointBasis, state: HeadState) -> Tensor:
    """Positions in the world, metres. [T, N, 3]"""
    in_head = place_in_head(basis, joints, state)
    return torch.einsum("tab,tnb->tna", state.rotations, in_head) + state.shift[:, None]


def place_in_head(basis: PointBasis, joints: JointBasis, state: HeadState) -> Tensor:
    """Positions in head space, metres. [T, N, 3]"""
    rest, features = _rest_points(basis, state)
    rotations, _ = joint_rotations(state)
    turned = rotations - torch.eye(3).to(rotations)
    weights = basis.lbs_weights[..., list(MOVING_JOINTS)]
    centres = _joint_positions(joints, state)
    away = rest[:, :, None] - centres[:, None]  # [T, N, 3 joints, 3]
    return rest + torch.einsum(
        "tnj,tjab,tnjb->tna", weights.expand(len(rest), -1, -1), turned, away
    )


def pose_jacobian(basis: PointBasis, joints: JointBasis, state: HeadState) -> tuple[Tensor, Tensor]:
    """Positions [T, N, 3] in the world, metres, and their derivatives by the unknowns [T, N, 3, U]."""
    rest, _ = _rest_points(basis, state)
    frames = len(rest)
    rotations, by_angle = joint_rotations(state)
    turned = rotations - torch.eye(3).to(rotations)
    weights = basis.lbs_weights[..., list(MOVING_JOINTS)].expand(frames, -1, -1)
    away = rest[:, :, None] - _joint_positions(joints, state)[:, None]
    in_head = rest + torch.einsum("tnj,tjab,tnjb->tna", weights, turned, away)

    blended = torch.eye(3).to(turned) + torch.einsum("tnj,tjab->tnab", weights, turned)
    columns = []
    for directions, of_joints in (
        (basis.shapedirs, joints.shapedirs),
        (basis.exprdirs, joints.exprdirs),
    ):
        at_joints = torch.einsum("tjab,jbs->tjas", turned, of_joints)
        moved = blended @ directions
        columns.append(moved - torch.einsum("tnj,tjas->tnas", weights, at_joints))
    moved = torch.einsum("tnj,atjxy,tnjy->tnjxa", weights, by_angle, away)
    correctives = _corrective_columns(basis, by_angle)
    eyes = moved[:, :, 1] + moved[:, :, 2]
    columns.append(moved[:, :, 0] + blended @ correctives[0])
    columns.append(eyes + blended @ (correctives[1] + correctives[2]))
    by_shape = torch.einsum("tab,tnbu->tnau", state.rotations, torch.cat(columns, dim=-1))

    turned_points = torch.einsum("tab,tnb->tna", state.rotations, in_head)
    identity = torch.eye(3).to(rest).expand(*rest.shape, 3)
    jacobian = torch.cat([by_shape, -skew(turned_points), identity], dim=-1)
    return turned_points + state.shift[:, None], jacobian


def _rest_points(basis: PointBasis, state: HeadState) -> tuple[Tensor, Tensor]:
    """Places before the joints turn, correctives included [T, N, 3], and the pose features."""
    frames = len(state.betas)
    rotations, _ = joint_rotations(state)
    turned = (rotations - torch.eye(3).to(rotations)).flatten(1)
    # The neck, first of the joints with correctives, is straight.
    features = torch.cat([torch.zeros_like(turned[:, :9]), turned], dim=1)
    places = basis.means.expand(frames, -1, -1)
    for directions, coefficients in (
        (basis.shapedirs, state.betas),
        (basis.exprdirs, state.expression),
        (basis.posedirs, features),
    ):
        directions = directions.expand(frames, -1, -1, -1)
        places = places + torch.einsum("tnck,tk->tnc", directions, coefficients)
    return places, features


def _joint_positions(joints: JointBasis, state: HeadState) -> Tensor:
    """Jaw, left and right eye at rest, metres. [T, 3, 3]"""
    moved = torch.einsum("jcs,ts->tjc", joints.shapedirs, state.betas)
    return joints.means + moved + torch.einsum("jce,te->tjc", joints.exprdirs, state.expression)


def _corrective_columns(basis: PointBasis, by_angle: Tensor) -> list[Tensor]:
    """How the correctives of jaw, left and right eye follow pitch and yaw. 3 of [T, N, 3, 2]"""
    directions = basis.posedirs[..., 9:].unflatten(-1, (3, 9))  # [1 or T, N, 3, joint, 9]
    changes = by_angle.flatten(3).movedim(0, -1)  # [T, joint, 9, 2]
    return [
        torch.einsum("tncf,tfa->tnca", directions[..., j, :].expand(len(changes), -1, -1, -1),
                     changes[:, j])
        for j in range(len(MOVING_JOINTS))
    ]  # fmt: skip


def to_rig_params(rig: HeadRig, state: HeadState) -> RigParams:
    """The state in the rig's own terms, in the rig's dtype; coefficients not fitted are zero."""
    like = rig.v_template
    neutral = rig.neutral(len(state.betas))
    betas, expression = neutral.betas.clone(), neutral.expression.clone()
    betas[:, : state.betas.shape[1]] = state.betas.to(like)
    expression[:, : state.expression.shape[1]] = state.expression.to(like)
    shaped = torch.einsum("jv,vcs->jcs", rig.J_regressor[:1], rig.shapedirs)
    moved = torch.einsum("jv,vce->jce", rig.J_regressor[:1], rig.exprdirs)
    roots = rig.J_regressor[:1] @ rig.v_template
    roots = roots + torch.einsum("jcs,ts->tjc", shaped, betas)
    roots = (roots + torch.einsum("jce,te->tjc", moved, expression))[:, 0].double()
    # The rig turns about its root joint, the fit about the origin.
    about_root = torch.einsum("tab,tb->ta", state.rotations, roots) - roots
    gaze = _with_roll(state.gaze).to(like)
    return replace(
        neutral,
        betas=betas,
        expression=expression,
        global_orient=matrix_to_axis_angle(state.rotations).to(like),
        jaw_pose=_with_roll(state.jaw).to(like),
        leye_pose=gaze,
        reye_pose=gaze.clone(),
        transl=(state.shift + about_root).to(like),
    )


def _with_roll(angles: Tensor) -> Tensor:
    return torch.cat([angles, torch.zeros_like(angles[:, :1])], dim=1)
