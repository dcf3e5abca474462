# SPDX-License-Identifier: Apache-2.0
"""How far a posed rig is from detected landmarks, as the normal equations of Gauss-Newton.

Everything is float64. The camera stands on the z axis and looks at the origin; residuals are in
distances between the outer corners of the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..geometry.structures import TensorRecord
from ..rigs.head_rig import HeadRig
from ..rigs.landmark_places import OUTER_CANTHI, LandmarkPlaces
from .head_state import HeadState
from .landmark_fit_config import LandmarkFitConfig
from .outline_matching import OutlineMatches, candidate_faces, match_outline
from .posed_points import pose_jacobian, pose_points
from .rig_basis import (
    JointBasis,
    PointBasis,
    build_joint_basis,
    build_vertex_basis,
    concatenate,
    interpolate_basis,
)


@dataclass(frozen=True)
class LandmarkBasis(TensorRecord):
    """What of a rig the landmarks see."""

    points: PointBasis  # [1, K + 2] the landmarks, then the pupils
    outline: PointBasis  # [1, C] vertices that can be on the outline
    outline_faces: Tensor  # [F', 3] between those
    joints: JointBasis
    weights: Tensor  # [K]


@dataclass(frozen=True)
class LandmarkTargets(TensorRecord):
    """What was detected in T frames, and the cameras it is seen by."""

    points: Tensor  # [T, K + 2, 2] pixels: the landmarks, then the pupils
    depths: Tensor  # [T, K] pixels, growing away from the camera
    outline: Tensor  # [T, O, 2] pixels
    has_pupils: Tensor  # [T] 1 or 0
    units: Tensor  # [T] pixels, between the outer corners of the eyes
    focals: Tensor  # [T] pixels
    centre: Tensor  # [2] pixels

    def __getitem__(self, frames: slice) -> LandmarkTargets:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        centre = parts.pop("centre")
        return LandmarkTargets(
            centre=centre, **{name: value[frames] for name, value in parts.items()}
        )


def build_landmark_basis(
    rig: HeadRig, places: LandmarkPlaces, num_betas: int, num_expressions: int
) -> LandmarkBasis:
    """The landmarks of a rig with its first coefficients."""
    sizes = (num_betas, num_expressions)
    corners = build_vertex_basis(rig, rig.faces[places.faces].flatten(), *sizes)
    landmarks = interpolate_basis(corners, places.barycentric)
    landmarks = replace(landmarks, means=landmarks.means + places.offsets.double())
    return LandmarkBasis(
        points=concatenate(landmarks, build_vertex_basis(rig, places.pupils, *sizes)),
        outline=build_vertex_basis(rig, places.outline_vertices, *sizes),
        outline_faces=candidate_faces(rig, places.outline_vertices),
        joints=build_joint_basis(rig, *sizes),
        weights=places.weights.double(),
    )


def select_targets(
    places: LandmarkPlaces, landmarks: Tensor, irises: Tensor | None
) -> LandmarkTargets:
    """Targets without cameras: focal lengths are nan. [T, 468, 3], [T, 2, 5, 2]"""
    frames = len(landmarks)
    chosen = landmarks[:, places.ids]
    pupils = landmarks.new_zeros(frames, 2, 2) if irises is None else irises.mean(2)
    right, left = landmarks[:, OUTER_CANTHI].unbind(1)
    return LandmarkTargets(
        points=torch.cat([chosen[..., :2], pupils], dim=1),
        depths=chosen[..., 2],
        outline=landmarks[:, places.outline_ids, :2],
        has_pupils=landmarks.new_full((frames,), float(irises is not None)),
        units=(left - right).norm(dim=-1),
        focals=landmarks.new_full((frames,), torch.nan),
        centre=landmarks.new_zeros(2),
    )


def normal_equations(
    basis: LandmarkBasis, targets: LandmarkTargets, state: HeadState, config: LandmarkFitConfig
) -> tuple[Tensor, Tensor]:
    """Squared Jacobian [T, U, U] and gradient [T, U] of half the weighted squared residuals."""
    terms = [*point_terms(basis, targets, state, config)]
    if targets.outline.shape[1] and len(basis.outline_faces):
        matches = find_outline(basis, targets, state, config)
        terms.append(outline_term(basis, targets, state, matches, config))
    residuals, jacobian = (torch.cat(parts, dim=1) for parts in zip(*terms, strict=True))
    return jacobian.mT @ jacobian, torch.einsum("tru,tr->tu", jacobian, residuals)


def point_terms(
    basis: LandmarkBasis, targets: LandmarkTargets, state: HeadState, config: LandmarkFitConfig
) -> list[tuple[Tensor, Tensor]]:
    """Robustly weighted residuals [T, R] and Jacobians [T, R, U]: in the image, then in depth."""
    positions, jacobian = pose_jacobian(basis.points, basis.joints, state)
    pixels, by_pixel = _project_jacobian(positions, jacobian, targets, config)
    units = targets.units[:, None]
    offsets = (pixels - targets.points) / units[..., None]
    pupils = config.pupil_weight * targets.has_pupils[:, None].expand(-1, 2)
    weights = torch.cat([basis.weights.expand(len(pixels), -1), pupils], dim=1)[..., None]
    count = len(basis.weights)
    # The camera looks along -z. Where the head stands is not in the depths, its relief is.
    scale = (targets.focals / config.camera_distance)[:, None] / units
    relief = -scale * positions[:, :count, 2] - targets.depths / units
    by_relief = -scale[..., None] * jacobian[:, :count, 2]
    return [
        _robust(weights * offsets, weights[..., None] * by_pixel / units[..., None, None], config),
        _robust(
            config.depth_weight * (relief - relief.mean(1, keepdim=True))[..., None],
            config.depth_weight * (by_relief - by_relief.mean(1, keepdim=True))[:, :, None],
            config,
        ),
    ]


def find_outline(
    basis: LandmarkBasis, targets: LandmarkTargets, state: HeadState, config: LandmarkFitConfig
) -> OutlineMatches:
    """Vertices on the rig's outline for the landmarks on the outline of the face."""
    points = pose_points(basis.outline, basis.joints, state)
    return match_outline(
        points,
        basis.outline_faces,
        project(points, targets, config),
        points.new_tensor([0.0, 0.0, config.camera_distance]),
        targets.outline,
        config.outline_reach * targets.units,
    )


def outline_term(
    basis: LandmarkBasis,
    targets: LandmarkTargets,
    state: HeadState,
    matches: OutlineMatches,
    config: LandmarkFitConfig,
) -> tuple[Tensor, Tensor]:
    """Distances across the outline. [T, O], [T, O, U]"""
    matched = basis.outline.gather(matches.candidates)
    positions, jacobian = pose_jacobian(matched, basis.joints, state)
    pixels, by_pixel = _project_jacobian(positions, jacobian, targets, config)
    scale = config.outline_weight * matches.is_near / targets.units[:, None]
    across = ((pixels - targets.outline) * matches.normals).sum(-1)
    by_across = torch.einsum("toc,tocu->tou", matches.normals, by_pixel)
    return _robust((scale * across)[..., None], (scale[..., None] * by_across)[:, :, None], config)


def project(points: Tensor, targets: LandmarkTargets, config: LandmarkFitConfig) -> Tensor:
    """Pixels of points in the world. [T, N, 3] metres -> [T, N, 2]"""
    across = points[..., :2] * points.new_tensor([1.0, -1.0])
    depths = config.camera_distance - points[..., 2:]
    return targets.focals[:, None, None] * across / depths + targets.centre


def _project_jacobian(
    points: Tensor, jacobian: Tensor, targets: LandmarkTargets, config: LandmarkFitConfig
) -> tuple[Tensor, Tensor]:
    """Pixels [T, N, 2] and their derivatives [T, N, 2, U]."""
    pixels = project(points, targets, config)
    depths = (config.camera_distance - points[..., 2])[..., None, None]
    scale = targets.focals[:, None, None, None] / depths
    across = jacobian[:, :, :2] * points.new_tensor([1.0, -1.0])[:, None]
    along = (pixels - targets.centre)[..., None] / depths * jacobian[:, :, 2:]
    return pixels, scale * across + along


def _robust(
    residuals: Tensor, jacobian: Tensor, config: LandmarkFitConfig
) -> tuple[Tensor, Tensor]:
    """Both with Cauchy's weight of each landmark, flattened. [T, N, c], [T, N, c, U]"""
    squared = residuals.square().sum(-1, keepdim=True) / config.outlier_scale**2
    weights = (1 + squared).rsqrt()
    return (weights * residuals).flatten(1), (weights[..., None] * jacobian).flatten(1, 2)
