# SPDX-License-Identifier: Apache-2.0
"""Lips that stay together while the jaw drops: every b, p and m.

ARKit measures the lips apart from the jaw: `mouthClose` says how much of the opening that `jawOpen`
makes the lips undo, so both at the same strength keep them together. What closes them depends on
the angle of the jaw and on the person, so it is solved for on the landmarks of the inner lips, for
any rig that has landmarks.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.structures import RigParams
from ..rigs.head_rig import HeadRig
from ..rigs.skinning import SkinnedPoints, skin_points

UPPER_LIP, LOWER_LIP = (
    (61, 62, 63),
    (67, 66, 65),
)  # iBUG landmarks that touch when the mouth is shut
JAW_KNOTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # strengths of `jawOpen`
# Of named expressions, those that move the lips up and down, and the corners, which a jaw drags.
LIP_MOVES = (
    "mouthClose", "mouthRollLower", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight",
)  # fmt: skip
# The middle of the lips must meet; beside it, a lip may lie a little in front of the other.
MIDDLE_WEIGHT, SIDEWAYS_WEIGHT = 3.0, 0.3
RIDGE = 0.003  # of the least squares, relative to the mean square of the directions


def fit_lip_closure(rig: HeadRig, jaw_angle: float, *, betas: Tensor | None = None) -> Tensor:
    """Expressions that close the lips of a jaw that is open by each strength of `JAW_KNOTS`.

    Args:
        rig: The rig; it needs landmarks.
        jaw_angle: Of the jaw at strength 1, radians.
        betas: Of the person; the default is the mean head. [S]

    Returns:
        [K, E]
    """
    moves = [i for i, name in enumerate(rig.expression_names) if name in LIP_MOVES]
    moves = moves or list(range(rig.num_expressions))
    gaps = _lip_gaps(rig, _probes(rig, moves, jaw_angle, betas))
    gaps = gaps.unflatten(0, (len(JAW_KNOTS), len(moves) + 1)).double() * _weights().to(gaps)
    opening = gaps[:, 0].flatten(1)  # [K, 9]
    directions = (gaps[:, 1:] - gaps[:, :1]).flatten(2)  # [K, M, 9]
    gram = directions @ directions.mT
    damping = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(len(moves))
    aim = -torch.einsum("kmi,ki->km", directions, opening)
    solution = torch.linalg.solve(gram + RIDGE * damping.to(gram), aim)
    closure = rig.v_template.new_zeros(len(JAW_KNOTS), rig.num_expressions)
    closure[:, moves] = solution.to(closure)
    return closure


def closing_expression(closure: Tensor, jaw_open: Tensor, mouth_close: Tensor) -> Tensor:
    """What closes the lips in every frame; the share `mouth_close / jaw_open` of the opening goes.

    Args:
        closure: From `fit_lip_closure`. [K, E]
        jaw_open: Strengths. [T]
        mouth_close: Strengths, of at most `jaw_open`. [T]

    Returns:
        [T, E]
    """
    knots = torch.tensor(JAW_KNOTS).to(closure)
    jaw = jaw_open.clamp(0, JAW_KNOTS[-1])
    upper = torch.searchsorted(knots, jaw).clamp(1, len(knots) - 1)
    along = ((jaw - knots[upper - 1]) / (knots[upper] - knots[upper - 1]))[:, None]
    whole = torch.lerp(closure[upper - 1], closure[upper], along)
    share = torch.where(jaw > 0, mouth_close / jaw.clamp_min(1e-6), 0.0)
    return share[:, None] * whole


def _probes(rig: HeadRig, moves: list[int], jaw_angle: float, betas: Tensor | None) -> RigParams:
    """For every knot a frame without expression, then one with each move alone. [K (M + 1)]"""
    frames = len(JAW_KNOTS) * (len(moves) + 1)
    person = None if betas is None else betas.to(rig.v_template).expand(frames, -1)
    params = rig.neutral(frames, betas=person)
    one_each = torch.zeros(len(moves) + 1, rig.num_expressions)
    one_each[range(1, len(moves) + 1), moves] = 1
    angles = jaw_angle * torch.tensor(JAW_KNOTS)
    params.jaw_pose[:, 0] = angles.repeat_interleave(len(moves) + 1).to(params.jaw_pose)
    return replace(params, expression=one_each.repeat(len(JAW_KNOTS), 1).to(params.expression))


def _lip_gaps(rig: HeadRig, params: RigParams) -> Tensor:
    """From the lower to the upper lip, metres. [T, 3, 3]"""
    marks = [*UPPER_LIP, *LOWER_LIP]
    ids = rig.faces[rig.landmark_faces[marks]]  # [6, 3]
    still = rig.canonical_vertices(params.betas[:1])[0]
    corners = SkinnedPoints(*(a[ids.flatten()] for a in (still, rig.exprdirs, rig.posedirs,
                                                         rig.lbs_weights)))  # fmt: skip
    posed, _ = skin_points(corners, params.expression, rig.joint_motion(params))
    corner_points = posed.unflatten(1, (len(marks), 3))
    points = torch.einsum("tmkc,mk->tmc", corner_points, rig.landmark_barycentric[marks])
    return points[:, : len(UPPER_LIP)] - points[:, len(UPPER_LIP) :]


def _weights() -> Tensor:
    """Of the gaps along x, y, z at the three pairs. [3, 3]"""
    axes = torch.tensor([SIDEWAYS_WEIGHT, 1.0, 1.0])
    return torch.tensor([1.0, MIDDLE_WEIGHT, 1.0])[:, None] * axes
