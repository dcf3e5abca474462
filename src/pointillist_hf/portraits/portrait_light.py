# SPDX-License-Identifier: Apache-2.0
"""What the brightness and the colours of a face tell: bad light, or something in front of it.

The limits lie between photographs that were spoilt on purpose and sixty good ones, of people with
dark skin, beards and glasses among others.
"""

from __future__ import annotations

import cv2
import numpy as np

from .face_landmarks import FaceLandmarks
from .rotated_square import RotatedSquare

SIDE = 128  # pixels of the square that is looked at
DARK = 0.22  # the brightest tenth of the face is darker, in [0, 1]
BURNT, BURNT_SHARE = 250, 0.15  # of 255 in all channels, and of the face
DARK_EYES = 0.35  # the brightest of an eye, in brightnesses of the cheek
# Of CIELAB: the cheeks against the bridge of the nose.
OTHER_COLOR, MUCH_DARKER = 15.0, -35.0

EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
CHEEKS = (50, 280, 205, 425, 117, 346)
BRIDGE = (6, 9, 151, 168)


def judge_light(picture: np.ndarray, landmarks: FaceLandmarks) -> tuple[str, ...]:
    """Warnings, one sentence or two each.

    Args:
        picture: [H, W, 3] uint8
        landmarks: Of the face.
    """
    around = landmarks.square()
    square = RotatedSquare(around.center, around.side, around.angle, SIDE)
    face = square.sample(picture)
    places = square.from_picture(landmarks.places[:, :2])
    inside = face[_fill(cv2.convexHull(places.astype(np.float32))[:, 0])]
    exposure = _judge_exposure(inside)
    # Colours in bad light say nothing about what is in front of the face.
    found = (exposure,) if exposure else (_judge_eyes(face, places), _judge_cheeks(face, places))
    return tuple(warning for warning in found if warning)


def _judge_exposure(pixels: np.ndarray) -> str | None:
    if np.percentile(pixels.mean(1), 90) < 255 * DARK:
        return "The face is dark, and little of its colours is left. Use a picture in more light."
    if (pixels.min(1) >= BURNT).mean() > BURNT_SHARE:
        return (
            "The face is overexposed, and what is white in the picture is white on the avatar. "
            "Use a picture in softer light."
        )
    return None


def _judge_eyes(face: np.ndarray, places: np.ndarray) -> str | None:
    """Both eyes: one may lie behind hair or in a shadow."""
    cheek = max(np.median(_sample(face, places, CHEEKS).mean(1)), 1)
    brightest = [np.percentile(face[_fill(places[list(eye)])].mean(1), 90) for eye in EYES]
    if max(brightest) / cheek >= DARK_EYES:
        return None
    return (
        "The eyes are dark, as behind sunglasses, and the avatar gets them so. Use a picture that "
        "shows them."
    )


def _judge_cheeks(face: np.ndarray, places: np.ndarray) -> str | None:
    cheeks, bridge = (
        np.median(cv2.cvtColor(colors[None] / np.float32(255), cv2.COLOR_RGB2LAB)[0], axis=0)
        for colors in (_sample(face, places, CHEEKS), _sample(face, places, BRIDGE))
    )
    lighter, *other = cheeks - bridge
    if np.hypot(*other) < OTHER_COLOR and lighter > MUCH_DARKER:
        return None
    return (
        "The cheeks have another colour than the bridge of the nose: something seems to cover the "
        "face, and the avatar wears it. Use a picture that shows all of it."
    )


def _sample(face: np.ndarray, places: np.ndarray, ids: tuple[int, ...]) -> np.ndarray:
    """Colours around landmarks. [K, 3] float32"""
    smooth = cv2.GaussianBlur(face, (0, 0), 1.5).astype(np.float32)
    columns, rows = places[list(ids)].astype(int).clip(0, SIDE - 1).T
    return smooth[rows, columns]


def _fill(outline: np.ndarray) -> np.ndarray:
    """What lies in a polygon [K, 2]; at least one pixel. [SIDE, SIDE]"""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [outline.clip(0, SIDE - 1).round().astype(np.int32)], 1)
    return mask > 0
