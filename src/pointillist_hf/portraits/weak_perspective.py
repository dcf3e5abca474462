# SPDX-License-Identifier: Apache-2.0
"""Where a head roughly is: its mean shape turned, scaled and shifted onto detected landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.rotations import nearest_rotation
from ..geometry.structures import TensorRecord


@dataclass(frozen=True)
class WeakPerspective(TensorRecord):
    """A camera so far away that depth does not change sizes, in T frames."""

    rotations: Tensor  # [T, 3, 3] of the head; x right, y up, z towards the camera
    scales: Tensor  # [T] pixels per metre
    origins: Tensor  # [T, 2] pixels, of the origin of the head's space


def align_to_landmarks(points: Tensor, landmarks: Tensor, weights: Tensor) -> WeakPerspective:
    """The rigid motion of the points that lies closest to the landmarks, whatever the roll.

    Args:
        points: On the mean head, metres. [K, 3]
        landmarks: Pixels, y down, z growing away from the camera. [T, K, 3]
        weights: Of the landmarks. [K]
    """
    shares = weights / weights.sum()
    towards_camera = landmarks * landmarks.new_tensor([1.0, -1.0, -1.0])
    middle = torch.einsum("k,kc->c", shares, points)
    middles = torch.einsum("k,tkc->tc", shares, towards_camera)
    offsets, wanted = points - middle, towards_camera - middles[:, None]
    rotations = nearest_rotation(torch.einsum("k,tka,kb->tab", shares, wanted, offsets))
    turned = torch.einsum("tab,kb->tka", rotations, offsets)
    # Depths are guesses, so what is seen in the image alone decides about the size.
    seen, drawn = wanted[..., :2], turned[..., :2]
    scales = torch.einsum("k,tkc,tkc->t", shares, seen, drawn)
    scales = scales / torch.einsum("k,tkc,tkc->t", shares, drawn, drawn)
    origins = middles - scales[:, None] * torch.einsum("tab,b->ta", rotations, middle)
    return WeakPerspective(rotations, scales, origins[:, :2] * origins.new_tensor([1.0, -1.0]))
