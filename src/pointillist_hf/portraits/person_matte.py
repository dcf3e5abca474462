# SPDX-License-Identifier: Apache-2.0
"""What belongs to the person, in a square around head and shoulders."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from .face_landmarks import FaceLandmarks
from .face_networks import FaceNetworks
from .matte_edges import SIDE, cut_background
from .own_person import find_own_person
from .portrait import CHIN, FOREHEAD, LEFT_OUTER_CANTHUS, RIGHT_OUTER_CANTHUS
from .rotated_square import RotatedSquare

MATTE_SIZE = 256
# Side of the frame in distances of the outer canthi, and how far its middle lies above the face's.
FRAME_SCALE, FRAME_LIFT = 4.6, 0.05
MATTE = "activation_10"
# Turns in radians and relative sides of the squares over which the matte is averaged: what one
# look leaves half transparent, a hat say, becomes clear.
VARIATIONS = ((0.0, 1.0), (0.08, 1.1), (-0.08, 1.2))
CONTRAST = 2.0
# The soft rim of the matte around what it shows surely, pixels of the square.
RIM = 5
# Share of the face below which the network has not seen the person.
MIN_FACE_SHARE = 0.5
# Share of face, hair and chest below which the network that tells people apart has not seen them.
MIN_OWN_SHARE = 0.9
HAIR_REACH = 0.42  # sides of the frame from the forehead
# Corners of a chest, sides of the frame from the chin.
CHEST = np.array([[-0.12, 0.12], [0.12, 0.12], [0.3, 0.4], [-0.3, 0.4]])


def head_frame(landmarks: FaceLandmarks) -> RotatedSquare:
    """The square around head and shoulders.

    It is turned by the right angle next to the head's roll, so that its edges are the picture's.
    """
    places = landmarks.places
    corners = places[[RIGHT_OUTER_CANTHUS, LEFT_OUTER_CANTHUS, CHIN, FOREHEAD]]
    # With depth, so that a turned head has the same size.
    side = FRAME_SCALE * float(np.linalg.norm(corners[1] - corners[0]))
    turn = math.pi / 2 * round(landmarks.roll / (math.pi / 2))
    up = np.array([math.sin(turn), -math.cos(turn)])
    center = corners[:, :2].mean(axis=0) + FRAME_LIFT * side * up
    return RotatedSquare(center, side, turn, MATTE_SIZE)


def find_matte(
    networks: FaceNetworks, picture: np.ndarray, landmarks: FaceLandmarks, *, alone: bool = False
) -> np.ndarray:
    """How much each pixel belongs to the person with this face.

    Args:
        networks: Whose matte network is used.
        picture: [H, W, 3] uint8
        landmarks: Of the face.
        alone: Whether the picture shows no other face.

    Returns:
        In [0, 1], 0 far from the head. [H, W] float32
    """
    square = _upright_square(landmarks)
    looks = [_look(networks, picture, square, turn=turn, scale=scale) for turn, scale in VARIATIONS]
    matte = (0.5 + CONTRAST * (np.mean(looks, axis=0) - 0.5)).clip(0, 1)
    places = square.from_picture(landmarks.places[:, :2])
    face = _fill(cv2.convexHull(np.round(places - 0.5).astype(np.int32)))
    if networks.person is not None:
        frame, scale = head_frame(landmarks), square.scale
        own = find_own_person(networks.person, picture, frame, square)
        shown = matte > 0.5
        chest = _fill_chest(places[CHIN], frame.side / scale) * shown
        hair = _fill_around(places[FOREHEAD], HAIR_REACH * frame.side / scale) * shown * alone
        areas = (area > 0 for area in (face, hair, chest))
        matte = matte * trust_person(own, *areas, chin=round(places[CHIN, 1]))
    if (matte[face > 0] > 0.5).mean() < MIN_FACE_SHARE:
        matte = np.maximum(matte, face)
    matte = cv2.resize(matte * _component_of(matte > 0.5, face), (SIDE, SIDE))
    fine = replace(square, size=SIDE)
    return fine.paste(cut_background(matte, fine.sample(picture)), *picture.shape[:2])


def _upright_square(landmarks: FaceLandmarks) -> RotatedSquare:
    """The smallest square that holds the frame and in which the head is upright.

    The network knows upright people only: at 20 degrees it takes walls for hair.
    """
    frame = head_frame(landmarks)
    rest = landmarks.roll - frame.angle
    side = frame.side * (abs(math.cos(rest)) + abs(math.sin(rest)))
    return replace(frame, side=side, angle=landmarks.roll)


def _look(
    networks: FaceNetworks,
    picture: np.ndarray,
    square: RotatedSquare,
    *,
    turn: float,
    scale: float,
) -> np.ndarray:
    """The matte of a square as it is seen in a turned and scaled one. [MATTE_SIZE, MATTE_SIZE]"""
    varied = replace(square, angle=square.angle + turn, side=square.side * scale)
    matte = networks.matte(varied.sample(picture).astype(np.float32) / 255)[MATTE]
    # The square's own frame is a picture in which the varied one lies around the middle.
    middle = np.full(2, MATTE_SIZE / 2)
    inside = RotatedSquare(middle, MATTE_SIZE * scale, turn, MATTE_SIZE)
    return inside.paste(matte.reshape(MATTE_SIZE, MATTE_SIZE), MATTE_SIZE, MATTE_SIZE)


def trust_person(
    own: np.ndarray, face: np.ndarray, hair: np.ndarray, chest: np.ndarray, *, chin: int
) -> np.ndarray:
    """What `find_own_person` found, as far as it has seen the person. [S, S] float32

    A black jacket before a dark wall is not seen: then nothing is said of what lies below the chin.
    Nor are big curls: then, of one who is alone, nothing is said of what lies above it.

    Args:
        own: 1 where the person may be. [S, S] float32
        face: [S, S] bool
        hair: Of the matte, around the forehead. [S, S] bool
        chest: Of the matte. [S, S] bool
        chin: Its row.
    """
    sees_face, sees_hair, sees_chest = (
        not area.any() or own[area].mean() > MIN_OWN_SHARE for area in (face, hair, chest)
    )
    below = (np.arange(len(own)) >= chin)[:, None]
    unknown = (below & (not sees_chest)) | (~below & (not sees_hair)) | (not sees_face)
    return np.where(unknown, np.float32(1), own)


def _fill_around(middle: np.ndarray, radius: float) -> np.ndarray:
    """1 on a disc. [MATTE_SIZE, MATTE_SIZE] float32"""
    rows, columns = np.mgrid[:MATTE_SIZE, :MATTE_SIZE] + 0.5
    squared = np.square(columns - middle[0]) + np.square(rows - middle[1])
    return (squared < radius**2).astype(np.float32)


def _fill_chest(chin: np.ndarray, side: float) -> np.ndarray:
    """1 on the middle of a chest below a chin. [MATTE_SIZE, MATTE_SIZE] float32"""
    return _fill(np.round(CHEST * side + chin - 0.5).astype(np.int32))


def _fill(polygon: np.ndarray) -> np.ndarray:
    """1 inside of corners [K, 2] int32. [MATTE_SIZE, MATTE_SIZE] float32"""
    area = np.zeros((MATTE_SIZE, MATTE_SIZE), np.float32)
    return cv2.fillConvexPoly(area, polygon, 1.0)


def _component_of(person: np.ndarray, face: np.ndarray) -> np.ndarray:
    """1 on the connected part that holds most of the face, with the rim around it."""
    _, labels = cv2.connectedComponents(person.astype(np.uint8))
    label = np.bincount(labels[(face > 0) & person]).argmax()
    return cv2.dilate((labels == label).astype(np.float32), np.ones((RIM, RIM), np.uint8))
