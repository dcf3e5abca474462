# SPDX-License-Identifier: Apache-2.0
"""The camera of a photograph whose head is known from another tracker."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..geometry.cameras import project_points
from ..geometry.rotations import axis_angle_to_matrix
from ..geometry.structures import Cameras, RigParams
from ..geometry.triangles import interpolate_corners
from ..rigs.head_rig import HeadRig
from ..rigs.landmark_sources import find_landmark_places
from .weak_perspective import align_to_landmarks

CAMERA_DISTANCE = 1.2  # metres
NUM_UNKNOWNS = 6  # turn, shift across, logarithm of the focal length
NUM_STEPS, DIFFERENCE = 8, 1e-5
ROBUSTNESS = 0.05  # of the size of the face: farther off, a landmark counts little
FLIP = (1.0, -1.0, -1.0)  # OpenCV's axes against those of the head: y down, z away


@torch.no_grad()
def fit_camera(
    rig: HeadRig, rig_params: RigParams, landmarks: Tensor, *, width: int, height: int
) -> Cameras:
    """The camera that shows the posed head where the landmarks are.

    Args:
        rig: With landmarks, see `find_landmark_places`.
        rig_params: One frame.
        landmarks: MediaPipe's, pixels; a smaller z is nearer. [468, 3]
        width: Of the photograph, pixels.
        height: Of the photograph, pixels.
    """
    places = find_landmark_places(rig)
    vertices = rig(rig_params)[0].double()
    points = interpolate_corners(vertices, rig.faces, places.faces, places.barycentric.double())
    found = landmarks[places.ids].to(points)
    pose = align_to_landmarks(points, found[None], places.weights.to(points))
    flip = points.new_tensor(FLIP)
    rotation = flip[:, None] * pose.rotations[0]
    offset = (pose.origins[0] - points.new_tensor([width, height]) / 2) / pose.scales[0]
    shift = torch.cat([offset, offset.new_tensor([CAMERA_DISTANCE])])
    # Turn, shift across and logarithm of the focal length, as changes of the start.
    unknowns = points.new_zeros(NUM_UNKNOWNS)

    def camera(change: Tensor) -> Cameras:
        turned = axis_angle_to_matrix(change[:3]) @ rotation
        moved = shift + torch.cat([change[3:5], change.new_zeros(1)])
        upper = torch.cat([turned, moved[:, None]], dim=1)
        viewmat = torch.cat([upper, change.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
        focal = CAMERA_DISTANCE * pose.scales[0] * change[5].exp()
        scale = torch.stack([focal, focal, focal.new_tensor(1.0)])
        middle = torch.zeros(3, 3).to(change)
        middle[:2, 2] = change.new_tensor([width / 2, height / 2])
        Ks = torch.diag(scale) + middle
        return Cameras(viewmat[None], Ks[None], width, height)

    def residuals(change: Tensor) -> Tensor:
        pixels, _ = project_points(points, camera(change))
        return ((pixels[0] - found[:, :2]) / found[:, :2].std()).flatten()

    for _ in range(NUM_STEPS):
        wrong, jacobian = residuals(unknowns), _differentiate(residuals, unknowns)
        weights = 1 / (1 + (wrong / ROBUSTNESS).square())
        normal = jacobian.T @ (weights[:, None] * jacobian) + 1e-6 * torch.eye(NUM_UNKNOWNS).to(
            points
        )
        unknowns = unknowns - torch.linalg.solve(normal, jacobian.T @ (weights * wrong))
    return camera(unknowns).to(rig.v_template)


def _differentiate(function: Callable[[Tensor], Tensor], place: Tensor) -> Tensor:
    """Derivatives by central differences. [R, U]"""
    steps = DIFFERENCE * torch.eye(len(place)).to(place)
    slopes = [(function(place + h) - function(place - h)) / (2 * DIFFERENCE) for h in steps]
    return torch.stack(slopes, dim=-1)
