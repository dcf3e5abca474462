# SPDX-License-Identifier: Apache-2.0
"""The 468 landmarks and the irises of a face whose place is roughly known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .face_networks import FaceNetworks
from .mediapipe_detection import DetectedFace
from .portrait import (
    LEFT_INNER_CANTHUS,
    LEFT_OUTER_CANTHUS,
    NUM_LANDMARKS,
    RIGHT_INNER_CANTHUS,
    RIGHT_OUTER_CANTHUS,
)
from .rotated_square import RotatedSquare

LANDMARK_SIZE, IRIS_SIZE = 192, 64
# Sides of the squares that the networks were trained on: in sides of the face, in eye widths.
FACE_MARGIN, EYE_MARGIN = 1.5, 2.3
# Outputs have no better names in the files.
PLACES, PRESENCE, IRIS = "conv2d_21", "conv2d_31", "output_iris"
# Turns in radians and relative sides of the squares over which landmarks are averaged.
VARIATIONS = ((0.12, 0.97), (-0.12, 0.97), (0.0, 1.06))


@dataclass(frozen=True)
class FaceLandmarks:
    """Landmarks of one face, in pixels of the picture."""

    places: np.ndarray  # [468, 3] z smaller is nearer
    score: float  # how sure the network is that it saw a face, in [0, 1]

    @property
    def roll(self) -> float:
        """Angle of the line of the eyes, radians."""
        across = self.places[LEFT_OUTER_CANTHUS] - self.places[RIGHT_OUTER_CANTHUS]
        return math.atan2(across[1], across[0])

    @property
    def box(self) -> np.ndarray:
        """x0, y0, x1, y1 around the landmarks. [4]"""
        return np.concatenate([self.places[:, :2].min(axis=0), self.places[:, :2].max(axis=0)])

    def square(self) -> RotatedSquare:
        """The square in which the network sees the face best: upright and in the middle."""
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        to_upright = np.array([[cos, sin], [-sin, cos]])
        upright = self.places[:, :2] @ to_upright.T
        low, high = upright.min(axis=0), upright.max(axis=0)
        center = (low + high) / 2 @ to_upright
        return RotatedSquare(center, FACE_MARGIN * (high - low).max(), self.roll, LANDMARK_SIZE)


def find_landmarks(
    networks: FaceNetworks, picture: np.ndarray, face: DetectedFace
) -> FaceLandmarks:
    """Landmarks of a detected face.

    Detection places the square too loosely, so the network looks twice.

    Args:
        networks: Whose landmark network is used.
        picture: [H, W, 3] uint8
        face: Where to look.
    """
    rough = RotatedSquare(face.center, FACE_MARGIN * face.side, face.roll, LANDMARK_SIZE)
    first = _look(networks, picture, rough)
    return _look(networks, picture, first.square())


def settle_landmarks(
    networks: FaceNetworks, picture: np.ndarray, landmarks: FaceLandmarks
) -> FaceLandmarks:
    """The mean of what the network sees in slightly different squares; the score stays.

    One look depends on how the pixels happen to fall: it moves landmarks by half a percent of the
    distance of the eyes when the photograph is turned, the mean by a third of that.
    """
    square = landmarks.square()
    looks = [
        _look(
            networks,
            picture,
            replace(square, angle=square.angle + turn, side=square.side * scale),
        )
        for turn, scale in VARIATIONS
    ]
    return replace(landmarks, places=np.mean([look.places for look in looks], axis=0))


def _look(networks: FaceNetworks, picture: np.ndarray, square: RotatedSquare) -> FaceLandmarks:
    outputs = networks.landmark(square.sample(picture).astype(np.float32) / 255)
    found = outputs[PLACES].reshape(NUM_LANDMARKS, 3).astype(np.float64)
    places = np.column_stack([square.to_picture(found[:, :2]), found[:, 2] * square.scale])
    logit = float(outputs[PRESENCE].reshape(()))
    return FaceLandmarks(places, 1 / (1 + math.exp(-max(min(logit, 100.0), -100.0))))


def find_irises(
    networks: FaceNetworks, picture: np.ndarray, landmarks: FaceLandmarks
) -> np.ndarray:
    """Centre and rim of the irises, the subject's left first, pixels of the picture. [2, 5, 2]"""
    left = (LEFT_INNER_CANTHUS, LEFT_OUTER_CANTHUS)
    right = (RIGHT_OUTER_CANTHUS, RIGHT_INNER_CANTHUS)
    eyes = [landmarks.places[list(corners), :2] for corners in (left, right)]
    return np.stack(
        [
            _find_iris(networks, picture, corners, landmarks.roll, is_mirrored=is_mirrored)
            for corners, is_mirrored in zip(eyes, (False, True), strict=True)
        ]
    )


def _find_iris(
    networks: FaceNetworks,
    picture: np.ndarray,
    corners: np.ndarray,
    roll: float,
    *,
    is_mirrored: bool,
) -> np.ndarray:
    """Of one eye; the network knows left eyes, a right one is shown to it mirrored. [5, 2]"""
    side = EYE_MARGIN * float(np.linalg.norm(corners[1] - corners[0]))
    square = RotatedSquare(corners.mean(axis=0), side, roll, IRIS_SIZE)
    pixels = square.sample(picture)
    pixels = pixels[:, ::-1] if is_mirrored else pixels
    outputs = networks.iris(pixels.astype(np.float32) / 255)
    places = outputs[IRIS].reshape(5, 3)[:, :2].astype(np.float64)
    if is_mirrored:
        places[:, 0] = IRIS_SIZE - places[:, 0]
    return square.to_picture(places)
