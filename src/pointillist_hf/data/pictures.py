# SPDX-License-Identifier: Apache-2.0
"""Pictures of one person in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry.structures import Cameras, RigParams


@dataclass(frozen=True)
class Pictures:
    """K pictures of one person, each with its camera and its rig parameters."""

    images: np.ndarray  # [K, H, W, 4] float32 sRGB with straight alpha
    rig_params: RigParams  # K frames
    cameras: Cameras  # K
