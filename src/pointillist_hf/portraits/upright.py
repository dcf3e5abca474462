# SPDX-License-Identifier: Apache-2.0
"""A photograph turned until the head in it is upright, and its camera turned along."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..geometry.structures import Cameras
from .portrait import Portrait
from .rotated_square import RotatedSquare

REACH = 1.5  # side of what is kept, in sides of the frame around head and shoulders
LARGEST = 2048  # pixels; of larger squares less is kept


def turn_upright(portrait: Portrait, cameras: Cameras) -> tuple[Portrait, Cameras]:
    """A square around the head whose rows are parallel to the line of the eyes.

    What lies beyond the border of the photograph repeats it, is not `inside`, and its matte is 0.

    Args:
        portrait: The photograph.
        cameras: One: the photograph's.

    Returns:
        The square as a photograph of its own, and its camera. The world stays as it is.
    """
    center = (portrait.frame[:2] + portrait.frame[2:]).double().numpy() / 2
    side = REACH * float(portrait.frame[2] - portrait.frame[0])
    square = RotatedSquare(center, side, portrait.roll, min(round(side), LARGEST))
    alpha = (255 * portrait.matte).round().to(torch.uint8).numpy()[..., None]
    matte, inside = (
        torch.from_numpy(square.sample(plane, beyond=0).reshape(square.size, square.size))
        for plane in (alpha, np.full_like(alpha, 255))
    )
    landmarks = _move(square, portrait.landmarks)
    low, high = landmarks[:, :2].amin(0), landmarks[:, :2].amax(0)
    margin = square.size * (1 - 1 / REACH) / 2
    turned = replace(
        portrait,
        pixels=torch.from_numpy(square.sample(portrait.pixels.numpy())),
        matte=matte.float() / 255,
        inside=inside == 255,
        landmarks=landmarks,
        irises=_move(square, portrait.irises),
        box=torch.cat([low, high]),
        frame=torch.tensor([margin, margin, square.size - margin, square.size - margin]),
        roll=0.0,
    )
    return turned, _turn_camera(square, cameras)


def _move(square: RotatedSquare, places: Tensor) -> Tensor:
    """Places of the photograph in the square; depths only change their unit. [..., 2 or 3]"""
    moved = torch.from_numpy(square.from_picture(places[..., :2].double().numpy())).float()
    return torch.cat([moved, places[..., 2:] / square.scale], dim=-1)


def _turn_camera(square: RotatedSquare, cameras: Cameras) -> Cameras:
    """The camera that sees in the square what the photograph's saw in the photograph."""
    turn = torch.eye(4)
    turn[:2, :2] = torch.from_numpy(np.linalg.inv(square.axes) * square.scale).float()
    Ks = cameras.Ks.clone()
    Ks[:, [0, 1], [0, 1]] /= square.scale
    Ks[:, :2, 2] = _move(square, cameras.Ks[:, :2, 2])
    viewmats = turn.to(cameras.viewmats) @ cameras.viewmats
    return Cameras(viewmats, Ks, square.size, square.size)
