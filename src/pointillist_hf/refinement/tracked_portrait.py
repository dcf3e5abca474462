# SPDX-License-Identifier: Apache-2.0
"""A photograph whose head is known: the face that was found, and the rig that lies on it."""

from __future__ import annotations

from dataclasses import dataclass

from ..geometry.structures import Cameras, RigParams
from ..portraits.camera_fit import fit_camera
from ..portraits.landmark_fit import fit_landmarks
from ..portraits.portrait import Portrait
from ..rigs.head_rig import HeadRig
from .portrait_view import PortraitView, frame_portrait


@dataclass(frozen=True)
class TrackedPortrait:
    """A photograph, the face in it, and the rig that lies on that face."""

    portrait: Portrait
    rig_params: RigParams  # one frame
    cameras: Cameras  # one, in the pixels of the photograph

    def view(self, size: int) -> PortraitView:
        """The head of the photograph, upright in a square picture. size: Its side, pixels."""
        portrait = self.portrait
        return frame_portrait(
            portrait.pixels,
            portrait.landmarks,
            portrait.irises,
            portrait.matte,
            self.cameras,
            self.rig_params,
            size=size,
        )


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
    size = {"width": portrait.width, "height": portrait.height}
    if rig_params is None:
        fit = fit_landmarks(rig, portrait.landmarks[None], portrait.irises[None], **size)
        return TrackedPortrait(portrait, fit.rig_params, fit.cameras)
    if cameras is None:
        cameras = fit_camera(rig, rig_params, portrait.landmarks, **size)
    return TrackedPortrait(portrait, rig_params, cameras)
