# SPDX-License-Identifier: Apache-2.0
"""Teeth that fill a smile: the upper row reaches down to where the photograph shows bright teeth.

A rig's teeth have a length of their own, and a gap below them would be painted on the mouth.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.cameras import project_points
from .face_kinds import FaceKinds
from .landmark_warp import unproject_shifts
from .mesh_pictures import at_pixels
from .placement import Placement
from .portrait_view import PortraitView
from .surface_cloud import SurfaceCloud

# Inner lips from the subject's right to the left, and a place on each cheek.
UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
CHEEKS = (50, 280)
OPEN, BRIGHT = 0.04, 0.75  # gap over the eye distance; brightness of teeth over that of cheeks
BEHIND_UPPER, BEHIND_LOWER = 0.03, 0.01  # of the eye distance by which teeth reach behind lips
SUNK = (0.0, -3e-3, -4e-3)  # metres, by which the lower row gives way
LONGEST = 2.2  # stretch of the upper row


@torch.no_grad()
def fit_teeth(
    cloud: SurfaceCloud, placement: Placement, view: PortraitView, face_kinds: FaceKinds
) -> SurfaceCloud:
    """The cloud with the upper teeth as long as a smile shows them; as it is if none does.

    Args:
        cloud: N points on the rig.
        placement: Of these points in the pose of the view.
        view: The photograph.
        face_kinds: Of the rig.
    """
    upper = face_kinds.is_upper_teeth[cloud.bindings]
    if not upper.any() or not shows_teeth(view):
        return cloud
    pixels, depths = project_points(placement.pose_means(cloud.means)[upper], view.cameras)
    pixels, depths = pixels[0], depths[0]
    rows = pixels[:, 1]
    first, height = rows.amin(), (rows.amax() - rows.amin()).clamp_min(1e-3)
    share = (rows - first) / height
    top = _lip_row(view, UPPER_LIP, pixels[:, 0]) - BEHIND_UPPER * view.eye_distance
    top = torch.minimum(top, first)
    bottom = _lip_row(view, LOWER_LIP, pixels[:, 0]) + BEHIND_LOWER * view.eye_distance
    stretch = ((bottom - top) / height).clamp(1.0, LONGEST)
    step = torch.stack([torch.zeros_like(rows), top + stretch * height * share - rows], dim=-1)
    shift = torch.zeros_like(cloud.means)
    shift[upper] = unproject_shifts(step, depths, view)
    means = cloud.means + placement.rest_vectors(shift)
    means[face_kinds.is_lower_teeth[cloud.bindings]] += means.new_tensor(SUNK)
    scales = cloud.scales.clone()
    scales[upper, :2] = scales[upper, :2] * stretch[:, None] ** 0.5
    return replace(cloud, means=means, scales=scales)


def shows_teeth(view: PortraitView) -> bool:
    """Whether the mouth is open and bright inside."""
    upper, lower = (view.landmarks[list(lip[4:7])].mean(0) for lip in (UPPER_LIP, LOWER_LIP))
    if float((lower - upper).norm()) < OPEN * view.eye_distance:
        return False
    half = int(0.14 * view.eye_distance)
    across = torch.arange(-half, half + 1).float()
    row = torch.stack([across, torch.zeros_like(across)], -1) + (upper + lower) / 2
    brightness = view.foreground.mean(-1)
    cheeks = at_pixels(brightness, view.landmarks[list(CHEEKS)]).mean()
    return bool(at_pixels(brightness, row).median() > BRIGHT * cheeks)


def _lip_row(view: PortraitView, lip: tuple[int, ...], columns: Tensor) -> Tensor:
    """Row of a lip at columns of the picture, straight between its landmarks. [N]"""
    marks = view.landmarks[list(lip)]
    marks = marks[marks[:, 0].argsort()]
    right = torch.searchsorted(marks[:, 0].contiguous(), columns.contiguous())
    right = right.clamp(1, len(marks) - 1)
    (x0, y0), (x1, y1) = marks[right - 1].unbind(-1), marks[right].unbind(-1)
    share = ((columns - x0) / (x1 - x0).clamp_min(1e-3)).clamp(0, 1)
    return torch.lerp(y0, y1, share)
