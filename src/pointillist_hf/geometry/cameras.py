# SPDX-License-Identifier: Apache-2.0
"""Cameras built from a few human numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .number_checks import check_integer, check_number
from .structures import MAX_SIDE, Cameras


def look_at(eyes: Tensor, targets: Tensor) -> Tensor:
    """World-to-camera matrices of cameras at `eyes` that look at `targets`, y up.

    Args:
        eyes: Camera centres, metres. [C, 3]
        targets: Points in the middle of the image, metres. [C, 3]

    Returns:
        [C, 4, 4]
    """
    forward = normalize(targets - eyes, dim=-1)
    up = forward.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward], dim=1)
    viewmats = torch.eye(4, dtype=eyes.dtype, device=eyes.device).repeat(len(eyes), 1, 1)
    viewmats[:, :3, :3] = rotation
    viewmats[:, :3, 3] = -torch.einsum("cij,cj->ci", rotation, eyes)
    return viewmats


def orbit_cameras(
    azimuths: Sequence[float],
    elevations: Sequence[float] | float = 0.0,
    *,
    distance: float = 1.2,
    fov: float = 18.0,
    target: Sequence[float] = (0.0, -0.02, 0.0),
    width: int = 256,
    height: int = 256,
) -> Cameras:
    """Cameras on a sphere around the head.

    Args:
        azimuths: Degrees; 0 faces the subject, positive moves to the subject's left. C numbers.
        elevations: Degrees above the horizon; one number, or one per camera.
        distance: From the target, metres.
        fov: Vertical opening angle, degrees.
        target: Point in the middle of the image, metres.
        width: Pixels.
        height: Pixels.
    """
    check_integer("width", width, 1, MAX_SIDE)
    check_integer("height", height, 1, MAX_SIDE)
    for angle in azimuths:
        check_number("azimuths", angle)
    check_number("fov", fov, 0, 179.0, above=True)
    check_number("distance", distance, 0, above=True)
    azimuth = torch.deg2rad(torch.tensor(azimuths, dtype=torch.float32))
    elevation = torch.deg2rad(torch.as_tensor(elevations, dtype=torch.float32)).expand_as(azimuth)
    offsets = torch.stack(
        [azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], dim=-1
    )
    targets = torch.tensor(target, dtype=torch.float32).expand(len(azimuth), 3)
    focal = 0.5 * height / math.tan(math.radians(fov) / 2)
    intrinsics = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return Cameras(
        viewmats=look_at(targets + distance * offsets, targets),
        Ks=intrinsics.repeat(len(azimuth), 1, 1),
        width=width,
        height=height,
    )


def project_points(points: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Pixel coordinates and depths of world points.

    Args:
        points: Metres. [N, 3]
        cameras: C cameras.

    Returns:
        Pixels [C, N, 2], the centre of the first pixel at 0.5; depths along the optical axis,
        metres [C, N].
    """
    rotation, translation = cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3]
    in_camera = torch.einsum("cij,nj->cni", rotation, points) + translation[:, None]
    homogeneous = torch.einsum("cij,cnj->cni", cameras.Ks, in_camera)
    return homogeneous[..., :2] / homogeneous[..., 2:], in_camera[..., 2]
