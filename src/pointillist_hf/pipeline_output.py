# SPDX-License-Identifier: Apache-2.0
"""Floor 6. What the pipeline makes of portraits."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusers.utils import BaseOutput
from torch import Tensor

from .avatar import Avatar
from .geometry.structures import Cameras, CanonicalPoints, RigParams
from .portraits.portrait import Portrait
from .refinement.tracked_portrait import TrackedPortrait


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
