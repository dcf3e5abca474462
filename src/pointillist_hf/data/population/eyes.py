# SPDX-License-Identifier: Apache-2.0
"""Eyeballs: sclera, iris and pupil as bands of angle around the line of sight."""

from __future__ import annotations

import numpy as np

from ...rigs.procedural.fields import smoothstep
from ...rigs.procedural.sculpt import EYE_CENTRE
from .appearance import Appearance
from .noise import value_noise
from .places import SurfacePlaces, blend

SCLERA = (0.93, 0.92, 0.90)
PUPIL = (0.02, 0.02, 0.02)
PUPIL_BAND = (10.5, 12.5)  # degrees over which pupil turns into iris
LIMBUS_BAND = (28.5, 31.0)  # degrees over which iris turns into sclera


def eye_color(places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """An eye that looks straight ahead in the template. [n, 3]."""
    mirrored = places.points * (1, 0, 0) - EYE_CENTRE * np.sign(places.points[:, :1]) * (1, 0, 0)
    offsets = mirrored + (places.points - EYE_CENTRE) * (0, 1, 1)
    offsets /= np.linalg.norm(offsets, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip(offsets[:, 2], -1, 1)))
    colors = blend(
        _iris_color(offsets, angle, appearance),
        _sclera_color(places.points, angle),
        smoothstep(angle, *LIMBUS_BAND),
    )
    return blend(colors, PUPIL, 1 - smoothstep(angle, *PUPIL_BAND))


def _iris_color(offsets: np.ndarray, angle: np.ndarray, appearance: Appearance) -> np.ndarray:
    """Radial fibres, brighter at the pupil, with a dark ring at the rim. [n, 3]."""
    around = np.arctan2(offsets[:, 1], offsets[:, 0])
    fibres = value_noise(np.stack([around * 7, angle * 0.15, np.zeros_like(angle)], axis=1), 1)
    shade = (0.8 + 0.35 * fibres) * (1.25 - 0.5 * smoothstep(angle, 12, 29))
    ring = 1 - 0.65 * smoothstep(angle, 25.5, 29.5)
    return np.asarray(appearance.iris, np.float32) * (shade * ring)[:, None]


def _sclera_color(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Off-white with faint red veins, darker where the lids shade it. [n, 3]."""
    veins = 0.12 * value_noise(points, 6)[:, None] * np.array([0, 1, 1])
    return np.asarray(SCLERA) * (1 - 0.10 * smoothstep(angle, 40, 75))[:, None] * (1 - veins)
