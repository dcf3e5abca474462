# SPDX-License-Identifier: Apache-2.0
"""AKD, the mean distance of keypoints of two faces, and what keypoints say about the pose.

Keypoints are MediaPipe's, in pixels of the picture; both are measured in pixels of a picture of 512
by 512. A face that was not found is a row of NaN, and stays NaN: it never counts as 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...portraits.portrait import LEFT_OUTER_CANTHUS, RIGHT_OUTER_CANTHUS

REFERENCE_SIZE = 512.0  # pixels
# Places that no expression moves: forehead, temples, bridge of the nose and corners of the eyes.
RIGID_POINTS = (10, 151, 9, 8, 168, 6, 197, 195, 33, 133, 362, 263, 127, 356, 234, 454, 54, 284)


def keypoint_distance(points: Tensor, targets: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean Euclidean distance in the picture plane, pixels at 512 x 512. [T]

    Args:
        points: Pixels; z is ignored. [T, K, 2 or 3]
        targets: Likewise.
        size: Width and height of the pictures, pixels.
    """
    check_points(points, targets)
    scale = REFERENCE_SIZE / points.new_tensor(size)
    return ((points - targets)[..., :2] * scale).norm(dim=-1).mean(-1)


def keypoint_l1(points: Tensor, targets: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean absolute difference of all coordinates, as the first papers had it. [T]"""
    check_points(points, targets)
    scale = REFERENCE_SIZE / points.new_tensor(size)
    return ((points - targets)[..., :2] * scale).abs().mean((-1, -2))


def normalised_keypoint_distance(points: Tensor, targets: Tensor) -> Tensor:
    """Mean Euclidean distance in distances of the target's outer corners of the eyes. [T]"""
    check_points(points, targets)
    corners = targets[:, [LEFT_OUTER_CANTHUS, RIGHT_OUTER_CANTHUS], :2]
    unit = (corners[:, 0] - corners[:, 1]).norm(dim=-1)
    return (points - targets)[..., :2].norm(dim=-1).mean(-1) / unit


def aligned_keypoint_distance(points: Tensor, targets: Tensor, size: tuple[int, int]) -> Tensor:
    """As `keypoint_distance`, after the similarity that fits the rigid places best. [T]

    It leaves place, size and roll out, and so asks for shape and expression.
    """
    check_points(points, targets)
    scale = REFERENCE_SIZE / points.new_tensor(size)
    a, b = points[..., :2] * scale, targets[..., :2] * scale
    rigid = list(RIGID_POINTS)
    rows = [
        _align(x, y, rigid) if (x + y).isfinite().all() else x for x, y in zip(a, b, strict=True)
    ]
    return (torch.stack(rows) - b).norm(dim=-1).mean(-1)


def keypoint_rotation(points: Tensor, targets: Tensor) -> Tensor:
    """Angle between the poses of two faces by their rigid keypoints in space, degrees. [T]

    A stand-in for APD, under its own name `pose_468_deg`: coarser, and of another network.

    Args:
        points: x, y and z in one unit. [T, K, 3]
        targets: Likewise.
    """
    check_points(points, targets)
    angles = torch.full((len(points),), torch.nan)
    for i, (one, other) in enumerate(zip(points.double(), targets.double(), strict=True)):
        if (one.isfinite() & other.isfinite()).all():
            a, b = one[list(RIGID_POINTS)], other[list(RIGID_POINTS)]
            rotation = _best_rotation(a - a.mean(0), b - b.mean(0))
            cosine = ((rotation.trace() - 1) / 2).clamp(-1, 1)
            angles[i] = torch.rad2deg(cosine.arccos())
    return angles


def check_points(points: Tensor, targets: Tensor) -> None:
    """Refuses sets that do not belong together.

    Raises:
        ValueError: Their shapes differ.
    """
    if points.shape != targets.shape or points.ndim != 3 or points.shape[-1] not in (2, 3):
        raise ValueError(
            "Keypoints must have one shape [T, K, 2] or [T, K, 3], got "
            f"{tuple(points.shape)} and {tuple(targets.shape)}."
        )


def _best_rotation(points: Tensor, targets: Tensor) -> Tensor:
    """The rotation that brings centred points nearest to others (Kabsch). [K, D] -> [D, D]"""
    left, _, right = torch.linalg.svd(targets.T @ points)
    signs = torch.ones(points.shape[1], dtype=points.dtype)
    signs[-1] = torch.sign(torch.linalg.det(left @ right))
    return left @ torch.diag(signs) @ right


def _align(points: Tensor, targets: Tensor, rigid: list[int]) -> Tensor:
    middle, goal = points[rigid].mean(0), targets[rigid].mean(0)
    a, b = points[rigid] - middle, targets[rigid] - goal
    rotation = _best_rotation(a, b)
    size = (b * (a @ rotation.T)).sum() / a.square().sum()
    return size * (points - middle) @ rotation.T + goal
