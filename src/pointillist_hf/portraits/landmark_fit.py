# SPDX-License-Identifier: Apache-2.0
"""A rig fitted to the face landmarks of photographs or of the frames of a video.

Gauss-Newton over identity, expression, jaw, gaze and pose, with the camera at a fixed distance and
its focal length from the size of the face. Pixel centres are at +0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..geometry.structures import Cameras, RigParams, TensorRecord, check_shape
from ..rigs.head_rig import HeadRig
from ..rigs.landmark_places import NUM_LANDMARKS, LandmarkPlaces
from ..rigs.landmark_sources import find_landmark_places
from .head_state import HeadState, to_rig_params
from .landmark_fit_config import LandmarkFitConfig
from .landmark_residuals import (
    LandmarkBasis,
    LandmarkTargets,
    build_landmark_basis,
    project,
    select_targets,
)
from .landmark_solver import solve_landmarks
from .posed_points import pose_points
from .weak_perspective import align_to_landmarks

MIN_EYE_DISTANCE = 2.0  # pixels


@dataclass(frozen=True)
class LandmarkFit(TensorRecord):
    """The rig in T frames: posed and seen by its camera it lies on the face."""

    rig_params: RigParams  # T
    cameras: Cameras  # T, in the pixels of the photograph
    projected: Tensor  # [T, K, 2] pixels, of the rig's landmarks
    landmark_ids: Tensor  # [K] which of the 468 they are
    error: Tensor  # [T] mean distance to the detected ones, in distances of the outer eye corners


def fit_landmarks(
    rig: HeadRig,
    landmarks: Tensor,
    irises: Tensor | None = None,
    *,
    width: int,
    height: int,
    shared_shape: bool = False,
    places: LandmarkPlaces | None = None,
    config: LandmarkFitConfig | None = None,
) -> LandmarkFit:
    """Identity, expression and pose of T faces, and the cameras they are seen by.

    Args:
        rig: With landmarks, see `find_landmark_places`.
        landmarks: MediaPipe's, pixels; a smaller z is nearer. [T, 468, 3]
        irises: Five points of the left and of the right one, pixels. [T, 2, 5, 2]
        width: Of the photograph, pixels.
        height: Of the photograph, pixels.
        shared_shape: Whether all frames show one person through one camera.
        places: Of the landmarks on the rig; by default `find_landmark_places(rig)`.
        config: Weights and limits.

    Raises:
        ValueError: An array has another shape or numbers that are none, or a face is a few pixels.

    Example:
        >>> fit = fit_landmarks(rig, portrait.landmarks[None], width=640, height=480)
        >>> vertices = rig(fit.rig_params)
    """
    _check_detections(landmarks, irises)
    config = config or LandmarkFitConfig()
    places = find_landmark_places(rig) if places is None else places
    with torch.no_grad():
        basis = build_landmark_basis(
            rig,
            places,
            num_betas=min(rig.num_betas, config.max_betas),
            num_expressions=min(rig.num_expressions, config.max_expressions),
        )
        irises = None if irises is None else irises.to(rig.v_template).double()
        targets = select_targets(places, landmarks.to(rig.v_template).double(), irises)
        _check_sizes(targets)
        start, targets = _start(basis, targets, (width, height), config, one_camera=shared_shape)
        state = solve_landmarks(
            basis, targets, start, places, config=config, shared_shape=shared_shape
        )
        projected = project(pose_points(basis.points, basis.joints, state), targets, config)
        projected = projected[:, : len(places.ids)]
        offsets = projected - targets.points[:, : len(places.ids)]
        return LandmarkFit(
            rig_params=to_rig_params(rig, state),
            cameras=_build_cameras(targets, width, height, config),
            projected=projected.to(rig.v_template),
            landmark_ids=places.ids,
            error=(offsets.norm(dim=-1).mean(1) / targets.units).to(rig.v_template),
        )


def _check_detections(landmarks: Tensor, irises: Tensor | None) -> None:
    check_shape("landmarks", landmarks, (None, NUM_LANDMARKS, 3))
    if not len(landmarks):
        raise ValueError("`landmarks` must hold at least one frame, got none.")
    if irises is not None:
        check_shape("irises", irises, (len(landmarks), 2, 5, 2))
    for name, values in (("landmarks", landmarks), ("irises", irises)):
        if values is not None and not values.isfinite().all():
            raise ValueError(
                f"`{name}` must be finite, got nan or inf; leave out frames without a face."
            )


def _check_sizes(targets: LandmarkTargets) -> None:
    smallest, frame = targets.units.min(0)
    if smallest < MIN_EYE_DISTANCE:
        raise ValueError(
            "`landmarks` must have the outer corners of the eyes at least "
            f"{MIN_EYE_DISTANCE:g} pixels apart, got {smallest:.2f} in frame {int(frame)}: this "
            "is no face, or one that is too small."
        )


def _start(
    basis: LandmarkBasis,
    targets: LandmarkTargets,
    picture: tuple[int, int],
    config: LandmarkFitConfig,
    *,
    one_camera: bool,
) -> tuple[HeadState, LandmarkTargets]:
    """The mean head where the face is, and the targets with their cameras."""
    count, frames = len(basis.weights), len(targets.points)
    found = torch.cat([targets.points[:, :count], targets.depths[..., None]], dim=-1)
    pose = align_to_landmarks(basis.points.means[0, :count], found, basis.weights)
    scales = pose.scales.median().expand(frames) if one_camera else pose.scales
    centre = targets.centre.new_tensor(picture) / 2
    targets = replace(targets, focals=config.camera_distance * scales, centre=centre)
    # One camera for all: a face that is larger than the median is nearer.
    depths = config.camera_distance * scales / pose.scales
    across = (pose.origins - centre) / pose.scales[:, None]
    across = across * across.new_tensor([1.0, -1.0])
    zeros = targets.centre.new_zeros
    state = HeadState(
        betas=zeros(frames, basis.points.shapedirs.shape[-1]),
        expression=zeros(frames, basis.points.exprdirs.shape[-1]),
        jaw=zeros(frames, 2),
        gaze=zeros(frames, 2),
        rotations=pose.rotations,
        shift=torch.cat([across, (config.camera_distance - depths)[:, None]], dim=1),
    )
    return state, targets


def _build_cameras(
    targets: LandmarkTargets, width: int, height: int, config: LandmarkFitConfig
) -> Cameras:
    """Cameras on the z axis that look at the origin."""
    frames = len(targets.focals)
    viewmats = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])).repeat(frames, 1, 1)
    viewmats[:, 2, 3] = config.camera_distance
    Ks = torch.eye(3).repeat(frames, 1, 1)
    Ks[:, 0, 0] = Ks[:, 1, 1] = targets.focals.float()
    Ks[:, :2, 2] = targets.centre.float()
    return Cameras(viewmats, Ks, width, height).to(targets.focals.device)
