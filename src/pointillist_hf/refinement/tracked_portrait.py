# SPDX-License-Identifier: Apache-2.0
"""A photograph whose head is known: the face that was found, and the rig that lies on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..geometry.cameras import project_points
from ..geometry.structures import Cameras, RigParams
from ..geometry.triangles import face_areas
from ..portraits.camera_fit import fit_camera
from ..portraits.landmark_fit import fit_landmarks
from ..portraits.portrait import Portrait
from ..portraits.upright import turn_upright
from ..rigs.head_rig import HeadRig
from .face_kinds import PointKind, find_face_kinds
from .mesh_pictures import draw_rig
from .portrait_view import PortraitView, frame_portrait

DEPTH_TOLERANCE = 6e-3  # metres behind what is nearest that still count as seen
MAX_ROLL = 0.1  # radians; less needs no resampling


@dataclass(frozen=True)
class TrackedPortrait:
    """A photograph, the face in it, and the rig that lies on that face."""

    portrait: Portrait
    rig_params: RigParams  # one frame
    cameras: Cameras  # one, in the pixels of the photograph

    def view(self, size: int) -> PortraitView:
        """The head of the photograph, upright in a square picture. size: Its side, pixels."""
        portrait, cameras = self.portrait, self.cameras
        if abs(portrait.roll) > MAX_ROLL:
            portrait, cameras = turn_upright(portrait, cameras)
        return frame_portrait(portrait, cameras, self.rig_params, size=size)


def fit_portrait(
    portrait: Portrait,
    rig: HeadRig,
    rig_params: RigParams | None = None,
    cameras: Cameras | None = None,
) -> TrackedPortrait:
    """The rig on the face of a photograph.

    Args:
        portrait: The photograph as tracked.
        rig: With landmarks.
        rig_params: One frame, if somebody knows it; else the landmarks decide.
        cameras: One, if somebody knows it; else the landmarks decide.
    """
    if rig_params is None:
        fit = fit_landmarks(
            rig,
            portrait.landmarks[None],
            portrait.irises[None],
            width=portrait.width,
            height=portrait.height,
        )
        rig_params, cameras = fit.rig_params, fit.cameras
    elif cameras is None:
        width, height = portrait.width, portrait.height
        cameras = fit_camera(rig, rig_params, portrait.landmarks, width=width, height=height)
    share = measure_share_seen(portrait, rig, rig_params, cameras)
    return TrackedPortrait(replace(portrait, share_seen=share), rig_params, cameras)


def measure_share_seen(
    portrait: Portrait, rig: HeadRig, rig_params: RigParams, cameras: Cameras
) -> float:
    """How much of the skin and the scalp, by area, the photograph shows, in [0, 1]."""
    kinds = find_face_kinds(rig).kinds
    outside = (kinds == PointKind.SKIN) | (kinds == PointKind.HAIR)
    vertices = rig(rig_params)[0]
    centres = vertices[rig.faces].mean(1)
    areas = face_areas(vertices, rig.faces) * outside
    pixels, depths = project_points(centres, cameras)
    places = pixels[0].floor().long()
    size = places.new_tensor([portrait.width, portrait.height])
    in_frame = ((places >= 0) & (places < size)).all(-1)
    column, row = places.clamp(min=places.new_zeros(2), max=size - 1).unbind(-1)
    nearest = draw_rig(rig, rig_params, cameras)[0][row, column]
    seen = in_frame & (portrait.matte[row, column] > 0.5) & (depths[0] < nearest + DEPTH_TOLERANCE)
    return float((areas * seen).sum() / areas.sum())
