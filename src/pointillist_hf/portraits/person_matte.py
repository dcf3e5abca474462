# SPDX-License-Identifier: Apache-2.0
"""What belongs to the person, in a square around head and shoulders."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .face_landmarks import FaceLandmarks
from .face_networks import FaceNetworks
from .portrait import CHIN, FOREHEAD, LEFT_OUTER_CANTHUS, RIGHT_OUTER_CANTHUS
from .rotated_square import RotatedSquare

MATTE_SIZE = 256
# Side of the square in distances of the outer canthi, and how far its middle lies above the face's.
FRAME_SCALE, FRAME_LIFT = 4.6, 0.05
MATTE = "activation_10"
# The soft rim of the matte around what it shows surely, pixels of the square.
RIM = 5


def head_square(landmarks: FaceLandmarks) -> RotatedSquare:
    """The square around head and shoulders, turned by the right angle next to the head's roll.

    Its edges are the picture's, so that it can be cut out; the network bears the rest of the roll.
    """
    places = landmarks.places
    corners = places[[RIGHT_OUTER_CANTHUS, LEFT_OUTER_CANTHUS, CHIN, FOREHEAD]]
    # With depth, so that a turned head has the same size.
    side = FRAME_SCALE * float(np.linalg.norm(corners[1] - corners[0]))
    turn = math.pi / 2 * round(landmarks.roll / (math.pi / 2))
    up = np.array([math.sin(turn), -math.cos(turn)])
    center = corners[:, :2].mean(axis=0) + FRAME_LIFT * side * up
    return RotatedSquare(center, side, turn, MATTE_SIZE)


def find_matte(networks: FaceNetworks, picture: np.ndarray, landmarks: FaceLandmarks) -> np.ndarray:
    """How much each pixel belongs to the person with this face. [H, W] float32 in [0, 1]

    Args:
        networks: Whose matte network is used.
        picture: [H, W, 3] uint8
        landmarks: Of the face.
    """
    square = head_square(landmarks)
    matte = networks.matte(square.sample(picture).astype(np.float32) / 255)[MATTE]
    matte = matte.reshape(MATTE_SIZE, MATTE_SIZE).clip(0, 1)
    face = _face_area(square.from_picture(landmarks.places[:, :2]))
    matte = np.maximum(matte * _component_of(matte > 0.5, face), face)
    return square.paste(matte, *picture.shape[:2])


def _face_area(places: np.ndarray) -> np.ndarray:
    """1 inside the outline of the landmarks. [MATTE_SIZE, MATTE_SIZE] float32"""
    area = np.zeros((MATTE_SIZE, MATTE_SIZE), np.float32)
    outline = cv2.convexHull(np.round(places - 0.5).astype(np.int32))
    return cv2.fillConvexPoly(area, outline, 1.0)


def _component_of(person: np.ndarray, face: np.ndarray) -> np.ndarray:
    """1 on the connected part that holds most of the face, with the rim around it."""
    _, labels = cv2.connectedComponents((person | (face > 0)).astype(np.uint8))
    label = np.bincount(labels[face > 0]).argmax()
    return cv2.dilate((labels == label).astype(np.float32), np.ones((RIM, RIM), np.uint8))
