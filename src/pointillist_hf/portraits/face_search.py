# SPDX-License-Identifier: Apache-2.0
"""Faces anywhere in a photograph: at any roll, and small ones too.

The detector is shown the whole picture first. Where it finds no face that it is sure of, it is
shown the picture turned by right angles, then overlapping windows that become smaller and smaller;
the largest windows in any case.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .face_landmarks import FaceLandmarks, find_landmarks
from .face_networks import FaceNetworks
from .mediapipe_detection import DETECTION_SIZE, DetectedFace, detect_faces
from .rotated_square import RotatedSquare

# Faces are looked for in a copy of at most this size: in windows of an eighth of it, the detector
# sees every pixel.
SEARCH_SIDE = 1024
UPRIGHT = (0.0,)
TURNED = (math.pi / 2, -math.pi / 2, math.pi)
# Windows in each round: the longer side of the picture in sides of a window, and the turns.
ROUNDS = ((1, UPRIGHT), (1, TURNED), (2, UPRIGHT), (2, TURNED), (4, UPRIGHT), (4, TURNED),
          (8, UPRIGHT))  # fmt: skip
# Pixels of the photograph; smaller windows would be enlarged for the detector.
MIN_WINDOW = 128
SAME_FACE_OVERLAP = 0.3
# Windows along the longer side that are always looked at: in the whole picture, the smaller of two
# faces may be missed.
LEAST_PARTS = 2


# Side of the square in which a detected face is detected again, in sides of the face.
CLOSE_UP = 2.5


@dataclass(frozen=True)
class SearchThresholds:
    """What counts as a face. Scores are in [0, 1]."""

    min_detection: float = 0.5  # from which a place is looked at more closely
    min_presence: float = 0.9  # of the landmark network
    min_score: float = 0.65  # product of presence and detection from close up
    sure: float = 0.77  # the product from which the search may end


def search_faces(
    networks: FaceNetworks, picture: np.ndarray, *, num_wanted: int, thresholds: SearchThresholds
) -> list[FaceLandmarks]:
    """Faces of a photograph with their landmarks, the largest first.

    Args:
        networks: That look.
        picture: [H, W, 3] uint8
        num_wanted: Faces after which the search ends.
        thresholds: What counts as a face.
    """
    copy, scale = _reduce(picture)
    faces: list[FaceLandmarks] = []
    sure: list[FaceLandmarks] = []
    for parts, turns in ROUNDS:
        squares = list(_windows(copy.shape[0], copy.shape[1], parts, turns))
        if parts > 1 and squares[0].side < MIN_WINDOW * scale:
            break
        boxes = [
            replace(box, center=box.center / scale, side=box.side / scale)
            for square in squares
            for box in detect_faces(
                networks.detection, copy, square, min_score=thresholds.min_detection
            )
        ]
        faces = _distinct(faces + _look_closer(networks, picture, boxes, thresholds))
        sure = [face for face in faces if face.score > thresholds.sure]
        if len(sure) >= num_wanted and parts >= LEAST_PARTS:
            break
    # What looks a little like a face counts where nothing looks more like one.
    return sorted(sure or faces, key=lambda face: -face.square().side)


def _reduce(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy of at most `SEARCH_SIDE`, and its pixels for one of the picture."""
    longer = max(picture.shape[:2])
    if longer <= SEARCH_SIDE:
        return picture, 1.0
    scale = SEARCH_SIDE / longer
    size = tuple(max(round(scale * extent), 1) for extent in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), scale


def _windows(
    height: int, width: int, parts: int, turns: tuple[float, ...]
) -> Iterator[RotatedSquare]:
    """Squares that cover the picture and overlap by half."""
    side = max(height, width) / parts
    for y in _middles(height, side):
        for x in _middles(width, side):
            for turn in turns:
                yield RotatedSquare(np.array([x, y]), side, turn, DETECTION_SIZE)


def _middles(extent: int, side: float) -> np.ndarray:
    """Middles of windows along one axis; one window in the middle where it shows everything."""
    if side >= extent:
        return np.array([extent / 2])
    return np.linspace(side / 2, extent - side / 2, math.ceil(2 * (extent / side - 1)) + 1)


def _look_closer(
    networks: FaceNetworks,
    picture: np.ndarray,
    boxes: list[DetectedFace],
    thresholds: SearchThresholds,
) -> list[FaceLandmarks]:
    """Those boxes that show a face from close up too, with landmarks; the score is the product.

    From close up the detector sees every face at the same size and nearly upright, so that its
    score means the same for all and its box is better than the first.
    """
    faces = []
    for box in boxes:
        square = RotatedSquare(box.center, CLOSE_UP * box.side, box.roll, DETECTION_SIZE)
        again = detect_faces(networks.detection, picture, square, min_score=thresholds.min_score)
        near = [b for b in again if np.linalg.norm(b.center - box.center) < box.side / 2]
        if not near:
            continue
        face = find_landmarks(networks, picture, near[0])
        score = near[0].score * face.score
        if face.score > thresholds.min_presence and score > thresholds.min_score:
            faces.append(replace(face, score=score))
    return faces


def _distinct(faces: list[FaceLandmarks]) -> list[FaceLandmarks]:
    """Each face once, as it was seen best."""
    kept: list[FaceLandmarks] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(_overlap(face.box, other.box) < SAME_FACE_OVERLAP for other in kept):
            kept.append(face)
    return kept


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Shared area of two boxes in areas of the smaller one."""
    shared = (np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0).prod()
    return shared / min((box[2:] - box[:2]).prod() for box in (one, other))
