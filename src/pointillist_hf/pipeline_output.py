# SPDX-License-Identifier: Apache-2.0
"""Floor 6. What the pipeline knows of its portraits, and what it makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusers.utils import BaseOutput
from torch import Tensor

from .avatar import Avatar
from .geometry.structures import Cameras, CanonicalPoints, RigParams
from .portraits.portrait import Portrait
from .refinement.portrait_view import PortraitView, frame_portrait


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


@dataclass
class AvatarPipelineOutput(BaseOutput):
    """What the pipeline makes of B portraits. `avatar`, `points`, `cameras` are of the first."""

    avatars: list[Avatar]
    clouds: list[CanonicalPoints]
    input_ids: Tensor  # [B, 4 (N + 2)], padded
    rig_params: RigParams  # one frame per avatar, as tracked, regressed or given
    tracked: list[TrackedPortrait] | None = None  # one per photograph; None without a tracker
    timings: dict[str, float] = field(default_factory=dict)  # seconds per step

    @property
    def avatar(self) -> Avatar:
        """The first avatar."""
        return self.avatars[0]

    @property
    def points(self) -> CanonicalPoints:
        """The first point cloud, in the order in which it was generated."""
        return self.clouds[0]

    @property
    def portraits(self) -> list[Portrait] | None:
        """The photographs as tracked."""
        return None if self.tracked is None else [one.portrait for one in self.tracked]

    @property
    def cameras(self) -> Cameras | None:
        """The camera of the first photograph, in its pixels.

        `avatar.animate(rig_params[:1]).render(cameras)` lies on the photograph.
        """
        return None if self.tracked is None else self.tracked[0].cameras
