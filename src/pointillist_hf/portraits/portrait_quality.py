# SPDX-License-Identifier: Apache-2.0
"""What about a photograph will make an avatar of it worse, said in words."""

from __future__ import annotations

import math

import numpy as np

from .face_landmarks import FaceLandmarks
from .portrait import LEFT_OUTER_CANTHUS, RIGHT_OUTER_CANTHUS

# Pixels between the outer canthi. Below, the landmarks are guesses.
MIN_EYE_DISTANCE = 24.0
# Degrees. Beyond, half of the face is out of sight and its landmarks are guesses.
MAX_YAW = 45.0
# From the landmarks' middle in heights of their box, up to where hair may begin.
MIN_SCORE = 0.6


def judge_portrait(picture: np.ndarray, landmarks: FaceLandmarks) -> tuple[str, ...]:
    """Warnings, one sentence each.

    Args:
        picture: [H, W, 3] uint8
        landmarks: Of the face.
    """
    warnings = []
    eyes = landmarks.places[[RIGHT_OUTER_CANTHUS, LEFT_OUTER_CANTHUS]]
    across = eyes[1] - eyes[0]
    distance = float(np.hypot(across[0], across[1]))
    if math.hypot(distance, across[2]) < MIN_EYE_DISTANCE:
        warnings.append(
            f"The face is small: the eyes are {distance:.0f} pixels apart, and at least "
            f"{MIN_EYE_DISTANCE:.0f} are needed for details. Use a larger picture of it."
        )
    yaw = math.degrees(math.atan2(abs(across[2]), distance))
    if yaw > MAX_YAW:
        warnings.append(
            f"The head is turned away by about {yaw:.0f} degrees, so that half of the face is out "
            "of sight. Use a picture from the front."
        )
    return tuple(warnings)
