# SPDX-License-Identifier: Apache-2.0
"""Which of several people in a picture a face belongs to.

The matte shows everybody who is near. MediaPipe's pose network is made for one person at a time: in
a square around the body it draws whose body it is, and leaves out the others.
"""

from __future__ import annotations

import cv2
import numpy as np

from .face_networks import FaceNetwork
from .rotated_square import RotatedSquare

LOOK_SIZE = 256
PERSON = "Identity_2"
# Squares of head and chest: their sides, and how far below the head's frame their middles lie, both
# in sides of that frame. In wide ones others come in, in narrow ones the chest is lost.
LOOKS = ((1.20, 0.18), (1.41, 0.25), (1.57, 0.30), (1.74, 0.36))
SURE = 0.5  # of the looks
LARGEST_HOLE = 0.01  # of the square: a larger one may be what shows behind an arm
REACH = 0.024  # of the frame's side around the person, whose outline the matte draws finer


def find_own_person(
    network: FaceNetwork, picture: np.ndarray, frame: RotatedSquare, square: RotatedSquare
) -> np.ndarray:
    """Where the person of a head may be.

    Args:
        network: The pose network.
        picture: [H, W, 3] uint8
        frame: Of the head, turned by right angles only: bodies are upright, heads may tilt.
        square: Whose pixels are asked for.

    Returns:
        1 there, 0 where others and other things are. [size, size] float32
    """
    looks = [_look(network, picture, frame, square, *look) for look in LOOKS]
    person = (np.mean(looks, axis=0) > SURE).astype(np.uint8)
    width = 2 * round(REACH * frame.side / square.scale) + 1
    person = cv2.dilate(person, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    whole = np.full((*picture.shape[:2], 1), 255, np.uint8)
    inside = square.sample(whole, beyond=0).reshape(person.shape) > 127
    return _fill_holes(person, inside).astype(np.float32)


def _look(
    network: FaceNetwork,
    picture: np.ndarray,
    frame: RotatedSquare,
    square: RotatedSquare,
    scale: float,
    drop: float,
) -> np.ndarray:
    """How likely each pixel of the square shows the person, as one look has it. [size, size]"""
    middle = np.array([0.5, 0.5 + drop]) * frame.size
    look = RotatedSquare(frame.to_picture(middle), scale * frame.side, frame.angle, LOOK_SIZE)
    logits = network(look.sample(picture).astype(np.float32) / 255)[PERSON]
    likely = 1 / (1 + np.exp(-logits.reshape(LOOK_SIZE, LOOK_SIZE).clip(-30, 30)))
    # The look as a square of the other one's pixels.
    inside = RotatedSquare(
        square.from_picture(look.center),
        look.side / square.scale,
        look.angle - square.angle,
        LOOK_SIZE,
    )
    return inside.paste(likely.astype(np.float32), square.size, square.size)


def _fill_holes(person: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The mask with small holes filled, those at the border of the picture too. [S, S] uint8"""
    nobody = ((person == 0) & inside).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(nobody)
    small = stats[:, cv2.CC_STAT_AREA] < LARGEST_HOLE * person.size
    return np.where((nobody > 0) & small[labels], 1, person)
