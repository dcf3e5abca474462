# SPDX-License-Identifier: Apache-2.0
"""What the fit of the rig leaves over: points move until the rig's landmarks lie on the found ones.

The displacement lives in the image plane, at the depth of the landmarks, and is smooth: a ridge
regression with Gaussian kernels on the posed head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.cameras import project_points
from ..geometry.triangles import interpolate_corners
from ..rigs.head_rig import HeadRig
from ..rigs.landmark_places import LandmarkPlaces
from .face_kinds import PointKind
from .placement import Placement
from .portrait_view import PortraitView
from .surface_cloud import SurfaceCloud

# How far a landmark reaches, metres, and the weight of its own error: the head first, then what
# lies so near together as two lips do.
SCALES = ((0.013, 0.15), (0.004, 0.3))
LARGE = 0.08  # of the distance of the outer canthi: beyond, a landmark is taken for wrong
MAX_GAZE = 0.06  # likewise, for the eyeballs


@torch.no_grad()
def warp_to_landmarks(
    cloud: SurfaceCloud,
    placement: Placement,
    view: PortraitView,
    rig: HeadRig,
    places: LandmarkPlaces,
) -> Tensor:
    """Means of the cloud at rest, moved by what the landmarks miss. [N, 3] metres"""
    vertices = rig(view.rig_params)[0]
    marks = interpolate_corners(vertices, rig.faces, places.faces, places.barycentric)
    posed = placement.pose_means(cloud.means)
    moved, at_marks = torch.zeros_like(posed), torch.zeros_like(marks)
    for reach, ridge in SCALES:
        wanted = _missing(marks + at_marks, view.landmarks[places.ids], view)
        own = _kernel(marks, marks, reach)
        weights = torch.linalg.solve(own + ridge * torch.eye(len(marks)), wanted)
        moved = moved + _kernel(posed, marks, reach) @ weights
        at_marks = at_marks + own @ weights
    moved = _move_rigid_parts(moved, posed, cloud.kinds, view)
    return cloud.means + placement.rest_vectors(moved)


def _kernel(a: Tensor, b: Tensor, reach: float) -> Tensor:
    return torch.exp(-torch.cdist(a, b).square() / (2 * reach**2))


def _missing(marks: Tensor, found: Tensor, view: PortraitView) -> Tensor:
    """Displacements in the world that bring the landmarks where they were found. [L, 3]"""
    pixels, depths = project_points(marks, view.cameras)
    missing = found - pixels[0]
    size = missing.norm(dim=-1, keepdim=True) / view.eye_distance
    missing = missing / (1 + (size / LARGE) ** 4)
    return unproject_shifts(missing, depths[0], view)


def unproject_shifts(shifts: Tensor, depths: Tensor, view: PortraitView) -> Tensor:
    """Shifts on the image plane as displacements in the world. [N, 2] pixels -> [N, 3] metres"""
    focal = view.cameras.Ks[0].diagonal()[:2]
    flat = shifts * depths[:, None] / focal
    return torch.nn.functional.pad(flat, (0, 1)) @ view.cameras.viewmats[0, :3, :3]


def _move_rigid_parts(moved: Tensor, posed: Tensor, kinds: Tensor, view: PortraitView) -> Tensor:
    """Eyeballs go where the irises are, each as a whole; teeth and mouth move by their mean."""
    moved = moved.clone()
    inner = (kinds == PointKind.TEETH) | (kinds == PointKind.MOUTH)
    if inner.any():
        moved[inner] = moved[inner].mean(0)
    eyes = (kinds == PointKind.EYE).nonzero()[:, 0]
    if not len(eyes):
        return moved
    pixels, depths = project_points(posed[eyes], view.cameras)
    pupils = view.irises.mean(1)  # the subject's left, then right
    owner = torch.cdist(pixels[0], pupils).argmin(1)
    for side, pupil in enumerate(pupils):
        ball = owner == side
        if not ball.any():
            continue
        nearest = depths[0, ball].argmin()  # the front pole of an eyeball is its pupil
        shift = pupil - pixels[0, ball][nearest]
        limit = MAX_GAZE * view.eye_distance
        shift = shift * (limit / shift.norm().clamp_min(1e-9)).clamp(max=1)
        step = unproject_shifts(shift[None], depths[0, ball][nearest][None], view)
        moved[eyes[ball]] = step.to(moved)
    return moved
