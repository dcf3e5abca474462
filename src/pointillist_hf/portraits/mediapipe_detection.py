# SPDX-License-Identifier: Apache-2.0
"""Faces in one square of a picture, by MediaPipe's short-range detector.

The detector sees 128 x 128 pixels and finds faces that stand within 45 degrees of upright and fill
at least an eighth of the square. `face_search` chooses the squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .face_networks import FaceNetwork
from .rotated_square import RotatedSquare

DETECTION_SIZE = 128
# Side of the network's grids, and how many boxes it proposes in each cell.
GRIDS = ((16, 2), (8, 6))
RIGHT_EYE, LEFT_EYE = 0, 1  # of the six keypoints
SAME_FACE_OVERLAP = 0.3
# Where a face must not be sought: sigmoid(100) is 1 in double precision already.
LOGIT_LIMIT = 100.0


@dataclass(frozen=True)
class DetectedFace:
    """A detected face: an upright square of its own frame from the brows to the chin."""

    center: np.ndarray  # [2] pixels of the picture
    side: float  # pixels of the picture
    roll: float  # of the line of the eyes, radians
    score: float  # in [0, 1]


def detect_faces(
    network: FaceNetwork, picture: np.ndarray, square: RotatedSquare, *, min_score: float
) -> list[DetectedFace]:
    """Faces in a square of the picture, the surest first.

    Args:
        network: The detector.
        picture: [H, W, 3] uint8
        square: Of `DETECTION_SIZE` pixels.
        min_score: Of a face.
    """
    pixels = square.sample(picture, beyond=0).astype(np.float32)
    outputs = network(pixels / 127.5 - 1)
    logits = outputs["classificators"].reshape(-1).astype(np.float64)
    scores = 1 / (1 + np.exp(-logits.clip(-LOGIT_LIMIT, LOGIT_LIMIT)))
    kept = scores > min_score
    places = outputs["regressors"].reshape(len(scores), 8, 2)[kept].astype(np.float64)
    places += DETECTION_SIZE * _anchors()[kept][:, None] * (np.arange(8) != 1)[:, None]
    return [_face_box(face, score, square) for face, score in _merge(places, scores[kept])]


@lru_cache(maxsize=1)
def _anchors() -> np.ndarray:
    """Middles of the cells that propose boxes, in sides of the square. [896, 2]"""
    grids = []
    for cells, boxes in GRIDS:
        middles = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(middles, middles, indexing="ij")
        grids.append(np.stack([x, y], axis=-1).reshape(-1, 2).repeat(boxes, axis=0))
    return np.concatenate(grids)


def _merge(places: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Proposals of one face as their mean, weighted by score: centre, extent, six keypoints."""
    faces = []
    left = np.argsort(-scores, kind="stable")
    while len(left):
        same = _overlaps(places[left[0]], places[left]) > SAME_FACE_OVERLAP
        # A box without area overlaps nothing, not even itself.
        same[0] = True
        mean = np.average(places[left[same]], axis=0, weights=scores[left[same]])
        faces.append((mean, float(scores[left[0]])))
        left = left[~same]
    return faces


def _overlaps(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with others, each as centre and extent. -> [K]"""
    low = np.maximum(one[0] - one[1] / 2, many[:, 0] - many[:, 1] / 2)
    high = np.minimum(one[0] + one[1] / 2, many[:, 0] + many[:, 1] / 2)
    shared = (high - low).clip(0).prod(axis=-1)
    return shared / (one[1].prod() + many[:, 1].prod(axis=-1) - shared + 1e-9)


def _face_box(face: np.ndarray, score: float, square: RotatedSquare) -> DetectedFace:
    center, extent, keypoints = face[0], face[1], face[2:]
    across = keypoints[LEFT_EYE] - keypoints[RIGHT_EYE]
    return DetectedFace(
        center=square.to_picture(center),
        side=float(extent.max()) * square.scale,
        roll=square.angle + math.atan2(across[1], across[0]),
        score=score,
    )
