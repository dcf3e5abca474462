# SPDX-License-Identifier: Apache-2.0
"""Portraits and views of a capture: the head cut out in the frame that portraits have."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...geometry.structures import Cameras, Capture
from ...rigs.head_rig import HeadRig
from ..pictures import Pictures
from ..population.photography import PORTRAIT_DISTANCE, PORTRAIT_FOV, PORTRAIT_TARGET

FRONT = 35.0  # degrees off the face's axis within which a picture is a portrait
FRAME_SIDE = 2 * PORTRAIT_DISTANCE * math.tan(math.radians(PORTRAIT_FOV) / 2)  # metres


def cut_pictures(
    capture: Capture, rig: HeadRig, num_portraits: int, num_views: int, *, size: int, seed: int
) -> tuple[Pictures, Pictures]:
    """Portraits from the front, and views from everywhere; of the pictures for training.

    Args:
        capture: Of one person.
        rig: Of its parameters.
        num_portraits: K, at different times as far as there are any.
        num_views: V.
        size: Side of the pictures, pixels.
        seed: Of the choice.

    Raises:
        ValueError: No picture is taken from the front.
    """
    numbers = torch.tensor(capture.of_split("train"), dtype=torch.long)
    transforms = rig.joint_motion(capture.rig_params).transforms[:, 0]
    transforms = transforms[capture.timesteps]  # [K, 3, 4]
    angles = face_angles(capture.cameras, transforms)[numbers]
    frontal = numbers[angles < FRONT]
    if not len(frontal):
        nearest = f"{float(angles.min()):.0f}" if len(angles) else "none"
        raise ValueError(
            f"`capture` {capture.name} must have a picture from the front (within {FRONT:.0f} "
            f"degrees) for training; the nearest is at {nearest}."
        )
    generator = torch.Generator().manual_seed(seed)
    portraits = _spread_over_time(frontal, capture, num_portraits, generator)
    views = numbers[torch.randperm(len(numbers), generator=generator)[:num_views]].tolist()
    return (
        _cut(capture, transforms, portraits, size),
        _cut(capture, transforms, views, size),
    )


def face_angles(cameras: Cameras, root_transforms: Tensor) -> Tensor:
    """Angles between the face's axis and the way to each camera, degrees. [K, 3, 4] -> [K]"""
    centers = torch.linalg.inv(cameras.viewmats)[:, :3, 3]
    heads = root_transforms @ torch.tensor([*PORTRAIT_TARGET, 1.0])
    ways = torch.nn.functional.normalize(centers - heads, dim=-1)
    cosines = (ways * root_transforms[:, :, 2]).sum(-1)
    return torch.rad2deg(cosines.clamp(-1, 1).acos())


def _spread_over_time(
    numbers: Tensor, capture: Capture, count: int, generator: torch.Generator
) -> list[int]:
    """A random picture of each time, then second ones, until there are enough."""
    shuffled = numbers[torch.randperm(len(numbers), generator=generator)].tolist()
    rounds: dict[int, int] = {}
    keyed = []
    for place, number in enumerate(shuffled):
        step = int(capture.timesteps[number])
        rounds[step] = rounds.get(step, -1) + 1
        keyed.append((rounds[step], place, number))
    return [number for _, _, number in sorted(keyed)[:count]]


def _cut(capture: Capture, transforms: Tensor, numbers: list[int], size: int) -> Pictures:
    cut = [_cut_one(capture, transforms[number], number, size) for number in numbers]
    chosen = torch.tensor(numbers)
    return Pictures(
        images=np.stack([image for image, _ in cut]),
        rig_params=capture.rig_params[capture.timesteps[chosen]],
        cameras=Cameras(
            viewmats=capture.cameras.viewmats[chosen],
            Ks=torch.stack([intrinsics for _, intrinsics in cut]),
            width=size,
            height=size,
        ),
    )


def _cut_one(
    capture: Capture, transform: Tensor, number: int, size: int
) -> tuple[np.ndarray, Tensor]:
    """One picture around the head [size, size, 4], and its intrinsics [3, 3]."""
    viewmat, intrinsics = capture.cameras.viewmats[number], capture.cameras.Ks[number]
    head = transform @ torch.tensor([*PORTRAIT_TARGET, 1.0])
    x, y, depth = intrinsics @ (viewmat[:3, :3] @ head + viewmat[:3, 3])
    side = float(intrinsics[0, 0]) * FRAME_SIDE / float(depth)
    left, top = float(x / depth) - side / 2, float(y / depth) - side / 2
    color, alpha = capture.images[number], capture.masks[number]
    pixels = torch.cat([_lift_off_white(color, alpha), alpha], dim=-1)
    # PIL reads nothing beyond the edge of a picture, where the frame of a head often lies.
    margin = max(0, math.ceil(max(-left, -top, left + side - color.shape[1],
                                  top + side - color.shape[0])))  # fmt: skip
    padded = torch.nn.functional.pad(pixels, (0, 0, margin, margin, margin, margin))
    box = (left + margin, top + margin, left + margin + side, top + margin + side)
    image = Image.fromarray((255 * padded).round().to(torch.uint8).numpy(), "RGBA")
    resized = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    scale = size / side
    moved = intrinsics.clone()
    moved[:2, 2] -= torch.tensor([left, top])
    moved[:2] *= scale
    return resized.astype(np.float32) / 255, moved


def _lift_off_white(color: Tensor, alpha: Tensor) -> Tensor:
    """The person's own colour where the picture blends it with white. [H, W, 3]"""
    return ((color - (1 - alpha)) / alpha.clamp_min(0.05)).clamp(0, 1)
