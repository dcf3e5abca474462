# SPDX-License-Identifier: Apache-2.0
"""What about a photograph will make an avatar of it worse, said in words.

The limits were set on photographs that were made worse step by step: landmarks move by about two
percent of the distance of the eyes where a warning begins.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from .face_landmarks import FaceLandmarks
from .portrait import CHIN, FOREHEAD, LEFT_OUTER_CANTHUS, RIGHT_OUTER_CANTHUS
from .rotated_square import RotatedSquare

MIN_EYE_DISTANCE = 24.0  # pixels
# Degrees. The landmarks say the turn well up to 50; beyond, half of the face is guessed.
MAX_YAW = 45.0
MIN_SCORE = 0.75
# The crown without hair lies this much above the highest landmark, in distances of the eyes.
CROWN_HEIGHT = 0.4
# Of details of a hundredth of the face to those three times as large; 0.4 to 0.6 in sharp pictures.
MIN_SHARPNESS = 0.22
SHARPNESS_SIZE = 128


def judge_portrait(picture: np.ndarray, landmarks: FaceLandmarks) -> tuple[str, ...]:
    """Warnings, one sentence or two each.

    Args:
        picture: [H, W, 3] uint8
        landmarks: Of the face.
    """
    eyes = landmarks.places[[RIGHT_OUTER_CANTHUS, LEFT_OUTER_CANTHUS]]
    across = eyes[1] - eyes[0]
    yaw = math.degrees(math.atan2(abs(across[2]), math.hypot(across[0], across[1])))
    # With depth: a turned head is not a small one.
    distance = float(np.linalg.norm(across))
    found = (
        _judge_size(distance),
        _judge_yaw(yaw),
        _judge_border(picture, landmarks, distance),
        _judge_sharpness(picture, landmarks),
        _judge_score(landmarks.score),
    )
    return tuple(warning for warning in found if warning)


def _judge_size(distance: float) -> str | None:
    if distance >= MIN_EYE_DISTANCE:
        return None
    return (
        f"The face is small: the eyes are {distance:.0f} pixels apart, and details need at least "
        f"{MIN_EYE_DISTANCE:.0f}. Use a larger picture of it."
    )


def _judge_yaw(yaw: float) -> str | None:
    if yaw <= MAX_YAW:
        return None
    return (
        f"The head is turned away by about {yaw:.0f} degrees, so that half of the face is out of "
        "sight. Use a picture taken more from the front."
    )


def _judge_border(picture: np.ndarray, landmarks: FaceLandmarks, distance: float) -> str | None:
    places = landmarks.places[:, :2]
    upwards = places[FOREHEAD] - places[CHIN]
    crown = places[FOREHEAD] + CROWN_HEIGHT * distance * upwards / np.linalg.norm(upwards)
    if _is_inside(crown, picture) and all(_is_inside(place, picture) for place in places):
        return None
    return (
        "The head is cut off by the border of the picture, and what is missing is guessed. Use a "
        "picture that shows the whole head."
    )


def _is_inside(place: np.ndarray, picture: np.ndarray) -> bool:
    height, width = picture.shape[:2]
    return 0 <= place[0] <= width and 0 <= place[1] <= height


def _judge_sharpness(picture: np.ndarray, landmarks: FaceLandmarks) -> str | None:
    if _sharpness(picture, landmarks) >= MIN_SHARPNESS:
        return None
    return "The face is blurred, and landmarks are less exact on it. Use a sharper picture."


def _sharpness(picture: np.ndarray, landmarks: FaceLandmarks) -> float:
    """Strength of the finest details of the face in strengths of coarser ones."""
    square = landmarks.square()
    face = RotatedSquare(square.center, square.side, square.angle, SHARPNESS_SIZE)
    gray = face.sample(picture).astype(np.float32).mean(axis=2)
    fine, coarse = cv2.GaussianBlur(gray, (0, 0), 1), cv2.GaussianBlur(gray, (0, 0), 3)
    # The face without what surrounds it, two thirds of the square.
    middle = slice(SHARPNESS_SIZE // 6, -SHARPNESS_SIZE // 6)
    detail = np.abs(gray - fine)[middle, middle].mean()
    return float(detail / max(np.abs(fine - coarse)[middle, middle].mean(), 1e-6))


def _judge_score(score: float) -> str | None:
    if score >= MIN_SCORE:
        return None
    return (
        f"The face was hard to find: its score is {score:.2f}, and sure ones have {MIN_SCORE} or "
        "more. Check that the landmarks lie on it."
    )
