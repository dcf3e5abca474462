# SPDX-License-Identifier: Apache-2.0
"""The motion with which an avatar introduces itself: it looks around, smiles, speaks and blinks.

A loop: the last frame is the first one again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..avatar import Avatar
from ..geometry.structures import RigParams

FPS = 25.0
SECONDS = 8.0
# (expression, strength, second of its middle, seconds from nothing to nothing)
EXPRESSIONS = (
    ("mouthSmile", 0.9, 2.4, 3.0),
    ("cheekSquint", 0.4, 2.4, 2.4),
    ("browInnerUp", 0.8, 4.9, 1.6),
    ("mouthPucker", 0.7, 6.4, 0.8),
    ("eyeBlink", 1.0, 1.0, 0.36),
    ("eyeBlink", 1.0, 3.9, 0.36),
    ("eyeBlink", 1.0, 7.2, 0.36),
)
JAW = ((0.16, 4.6, 0.7), (0.22, 5.3, 0.7), (0.12, 5.9, 0.6))  # radians, second, seconds
TURN, NOD, TILT, GAZE = 0.32, 0.07, 0.06, 0.16  # radians


def build_greeting(avatar: Avatar) -> RigParams:
    """Frames at `FPS`; a rig without named expressions turns its joints only."""
    times = torch.arange(round(SECONDS * FPS)) / FPS
    turn = 2 * math.pi * times / SECONDS
    neck = torch.stack([NOD * torch.sin(2 * turn), TURN * torch.sin(turn), TILT * _sway(turn)], -1)
    # The eyes go ahead of the head.
    gaze = torch.stack([torch.zeros_like(turn), GAZE * torch.cos(turn) * turn.sin().abs()], -1)
    gaze = torch.nn.functional.pad(gaze, (0, 1))
    jaw = torch.zeros(len(times), 3)
    for angle, middle, width in JAW:
        jaw[:, 0] += angle * _bump(times, middle, width)
    params = avatar.rig_params(
        num_frames=len(times), neck_pose=neck, jaw_pose=jaw, leye_pose=gaze, reye_pose=gaze
    )
    for name, strength, middle, width in EXPRESSIONS:
        if _has(avatar, name):
            curve = strength * _bump(times, middle, width)
            params.expression.add_(curve[:, None] * avatar.rig.expression({name: 1.0}))
    return params


def _has(avatar: Avatar, name: str) -> bool:
    return {name, f"{name}Left"} & {*avatar.rig.expression_names} != set()


def _sway(turn: Tensor) -> Tensor:
    """Twice as fast as the turn, and still where the loop begins."""
    return torch.sin(turn) * torch.sin(turn / 2)


def _bump(times: Tensor, middle: float, width: float) -> Tensor:
    """From 0 to 1 and back, smoothly, around a second."""
    place = ((times - middle) / width).clamp(-0.5, 0.5)
    return (1 + torch.cos(2 * math.pi * place)) / 2
