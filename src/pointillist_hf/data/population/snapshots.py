# SPDX-License-Identifier: Apache-2.0
"""Portraits as photographs are: other lenses and crops, tones, noise, JPEG, an inexact matte.

A photograph reaches the networks cut out and in the frame of a portrait. What is left of the world
in it is here: the perspective of its lens, a frame that is a little off, the white balance and
contrast of its camera, blocks and noise, and the rim of its background where the matte is inexact.
"""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image, ImageFilter

from ...geometry.cameras import orbit_cameras
from ...geometry.structures import Cameras
from ...portraits.image_processing_portrait import FRAME_MIDDLE, FRAME_SIDE
from .noise import value_noise

DISTANCES = (0.45, 2.5)  # metres, from a selfie to a studio
# Of the frame, as `benchmarks/tracking.py` finds it off: metres, and relative.
SHIFT, ZOOM, ROLL = 0.006, 0.03, math.radians(2.0)
AZIMUTHS, ELEVATIONS = (-32.0, 32.0), (-10.0, 14.0)  # degrees

EXPOSURE, TINT, CONTRAST, SATURATION = 0.12, 0.05, 0.12, 0.15  # deviations of logarithms
NOISE = 0.02  # largest deviation
JPEG_SHARE, QUALITIES = 0.8, (35, 95)
FOCUS = 0.8  # largest radius of the blur, pixels of a picture of 112
BACKDROP_FREQUENCIES = (1.5, 5.0)  # cells per side of the picture
# Pixels of a picture of 112; of the alpha, what is cut off at either end.
MATTE_BLUR, MATTE_CUT = 1.0, 0.35
MUTING = (0.3, 0.9)  # share of grey in a backdrop


def snapshot_cameras(rng: Generator, count: int, *, size: int) -> Cameras:
    """Cameras of portraits at any distance, with the head as large as in the frame of all."""
    cameras = [_snapshot_camera(rng, size) for _ in range(count)]
    return Cameras(
        viewmats=torch.cat([camera.viewmats for camera in cameras]),
        Ks=torch.cat([camera.Ks for camera in cameras]),
        width=size,
        height=size,
    )


def _snapshot_camera(rng: Generator, size: int) -> Cameras:
    near, far = DISTANCES
    distance = near * (far / near) ** rng.random()
    side = FRAME_SIDE * math.exp(rng.normal(0, ZOOM))
    camera = orbit_cameras(
        [rng.uniform(*AZIMUTHS)],
        [rng.uniform(*ELEVATIONS)],
        distance=distance,
        fov=math.degrees(2 * math.atan(0.5 * side / distance)),
        target=(np.array(FRAME_MIDDLE) + rng.normal(0, SHIFT, 3)).tolist(),
        width=size,
        height=size,
    )
    angle = rng.normal(0, ROLL)
    roll = torch.eye(4)
    roll[:2, :2] = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    return Cameras(roll @ camera.viewmats, camera.Ks, size, size)


def photograph(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A drawn picture as a camera and a matte would give it.

    Args:
        image: sRGB with straight alpha. [H, W, 4] float32 in [0, 1]
        rng: Source of the draws.

    Returns:
        Likewise. [H, W, 4]
    """
    alpha = image[..., 3:]
    scene = image[..., :3] * alpha + sample_backdrop(rng, image.shape[0]) * (1 - alpha)
    scene = _develop(scene, rng)
    pixels = Image.fromarray(np.round(255 * scene).astype(np.uint8))
    radius = rng.uniform(0, FOCUS) * image.shape[0] / 112
    pixels = pixels.filter(ImageFilter.GaussianBlur(radius))
    noisy = np.asarray(pixels, np.float32) / 255
    noisy = noisy + rng.normal(0, rng.uniform(0, NOISE), noisy.shape)
    pixels = Image.fromarray(np.round(255 * noisy.clip(0, 1)).astype(np.uint8))
    if rng.random() < JPEG_SHARE:
        pixels = _compress(pixels, int(rng.integers(*QUALITIES)))
    color = np.asarray(pixels, np.float32) / 255
    return np.concatenate([color, _cut_out(alpha[..., 0], radius, rng)[..., None]], axis=-1)


def sample_backdrop(rng: Generator, size: int) -> np.ndarray:
    """What may be behind a person, out of focus. [size, size, 3] in [0, 1]"""
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    points = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    frequency = rng.uniform(*BACKDROP_FREQUENCIES)
    waves = [value_noise(points, frequency, shift=rng.uniform(0, 60)) for _ in range(2)]
    tones = rng.random((3, 3)) ** np.array([[1.5], [0.7], [1.0]])
    tones += rng.uniform(*MUTING) * (tones.mean(axis=1, keepdims=True) - tones)
    dark, light, accent = tones
    mix, spot = (wave.reshape(size, size, 1) for wave in waves)
    spot = np.clip(3 * (spot - 0.6), 0, 1)
    backdrop = dark + (light - dark) * mix
    return (backdrop + (accent - backdrop) * spot).astype(np.float32)


def _develop(scene: np.ndarray, rng: Generator) -> np.ndarray:
    """Exposure, white balance, contrast and saturation as a camera chooses them. [H, W, 3]"""
    gains = np.exp(rng.normal(0, EXPOSURE) + rng.normal(0, TINT, 3))
    contrast, saturation = np.exp(rng.normal(0, (CONTRAST, SATURATION)))
    scene = np.clip(scene * gains, 0, 1) ** contrast
    grey = scene.mean(axis=-1, keepdims=True)
    return np.clip(grey + saturation * (scene - grey), 0, 1)


def _compress(pixels: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    pixels.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _cut_out(alpha: np.ndarray, radius: float, rng: Generator) -> np.ndarray:
    """A matte that is a little soft, and a little too wide or too narrow. [H, W]"""
    matte = Image.fromarray(np.round(255 * alpha).astype(np.uint8))
    blur = rng.uniform(0, MATTE_BLUR) * len(alpha) / 112
    soft = np.asarray(matte.filter(ImageFilter.GaussianBlur(radius + blur)), np.float32) / 255
    below, above = rng.uniform(0, MATTE_CUT, 2)
    return np.clip((soft - below) / (1 - above - below), 0, 1)
