# SPDX-License-Identifier: Apache-2.0
"""Rotations: axis-angle, matrices on column vectors, quaternions wxyz; all differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rotation matrices of axis-angle vectors (Rodrigues), smooth at zero.

    Args:
        axis_angle: Axis times angle, radians. [..., 3]

    Returns:
        [..., 3, 3]
    """
    return quat_to_matrix(axis_angle_to_quat(axis_angle))


def axis_angle_to_quat(axis_angle: Tensor) -> Tensor:
    """Unit quaternions of axis-angle vectors. [..., 3] radians -> [..., 4]"""
    squared = axis_angle.square().sum(-1, keepdim=True)
    small = squared < 1e-8
    # The square root has no gradient at zero, so the untaken branch is fed a safe angle.
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    ratio = torch.where(small, 0.5 - squared / 48, torch.sin(angle / 2) / angle)
    real = torch.where(small, 1 - squared / 8, torch.cos(angle / 2))
    return torch.cat([real, axis_angle * ratio], dim=-1)


def quat_to_matrix(quats: Tensor) -> Tensor:
    """Rotation matrices of quaternions of any non-zero length. [..., 4] -> [..., 3, 3]"""
    w, x, y, z = normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quat(matrices: Tensor) -> Tensor:
    """Unit quaternions of matrices, their largest part positive. [..., 3, 3] -> [..., 4]"""
    xx, yy, zz = matrices.diagonal(dim1=-2, dim2=-1).unbind(-1)
    sums, differences = matrices + matrices.mT, matrices - matrices.mT
    xy, xz, yz = sums[..., 0, 1], sums[..., 0, 2], sums[..., 1, 2]
    wx, wy, wz = differences[..., 2, 1], differences[..., 0, 2], differences[..., 1, 0]
    # Each row is the quaternion scaled by four times one of its components; the row whose
    # component is largest is the one that divides by a number far from zero.
    entries = [
        1 + xx + yy + zz, wx, wy, wz,
        wx, 1 + xx - yy - zz, xy, xz,
        wy, xy, 1 - xx + yy - zz, yz,
        wz, xz, yz, 1 - xx - yy + zz,
    ]  # fmt: skip
    rows = torch.stack(entries, dim=-1).unflatten(-1, (4, 4))
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = rows.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    return normalize(chosen, dim=-1)


def matrix_to_axis_angle(matrices: Tensor) -> Tensor:
    """Axis times angle of rotations, the angle at most pi. [..., 3, 3] -> [..., 3] radians"""
    quats = matrix_to_quat(matrices)
    quats = torch.where(quats[..., :1] < 0, -quats, quats)
    sine = quats[..., 1:].norm(dim=-1, keepdim=True)
    half = torch.atan2(sine, quats[..., :1])
    # At the identity the axis vanishes, and angle over sine goes to 2.
    ratio = torch.where(sine > 1e-12, 2 * half / sine.clamp_min(1e-12), 2.0)
    return quats[..., 1:] * ratio


def quat_multiply(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product: the rotation `right` followed by `left`. [..., 4] x [..., 4] -> [..., 4]"""
    aw, ax, ay, az = left.unbind(-1)
    bw, bx, by, bz = right.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def nearest_rotation(matrices: Tensor) -> Tensor:
    """The rotation closest to each matrix (Frobenius): blended skinning matrices are not quite one.

    [..., 3, 3] -> [..., 3, 3]
    """
    with torch.no_grad():
        u, stretches, vh = torch.linalg.svd(matrices)
        # Flip the weakest axis where the product would be a reflection.
        flip = torch.ones_like(stretches)
        flip[..., 2] = torch.linalg.det(u @ vh)
        rotations = (u * flip[..., None, :]) @ vh
        stretches = stretches * flip
        sums = (stretches[..., :, None] + stretches[..., None, :]).clamp_min(1e-6)
    if not matrices.requires_grad:
        return rotations
    # The decomposition has no gradient where stretches agree, as they do in every rotation, but its
    # product has: a change of the matrix turns the rotation by its antisymmetric part.
    change = rotations.mT @ (matrices - matrices.detach())
    twist = vh.mT @ ((vh @ (change - change.mT) @ vh.mT) / sums) @ vh
    return rotations + rotations @ twist
