# SPDX-License-Identifier: Apache-2.0
"""Where hair, brows, beard, lips and clothes lie, as soft masks over the neutral head.

Positions are those on the neutral head, whatever its pose: centimetres, x to the subject's left,
y up, z out of the face. Row heights and azimuths are the template's. Masks run from 0 to 1.
"""

from __future__ import annotations

import numpy as np

from .fields import smoothstep
from .grid import MOUTH_CORNER, MOUTH_LINE

# Height of the hairline by azimuth: forehead, temples, over and behind the ears, nape.
HAIRLINE_AZIMUTH = [0, 18, 32, 42, 50, 60, 72, 82, 95, 105, 120, 140, 180]
HAIRLINE_HEIGHT = [8.6, 8.7, 8.3, 7.2, 5.2, 4.6, 3.2, 1.2, 2.9, 1.0, -2.6, -4.2, -4.8]
BEARD_AZIMUTH = [0, 14, 22, 32, 45, 58, 70, 80]
BEARD_TOP = [-1.95, -2.0, -2.6, -3.6, -4.0, -3.2, -1.5, 1.0]
BEARD_BOTTOM = -9.3
BROW_INNER, BROW_OUTER = 1.05, 4.75
BROW_STATION = [-0.2, 0, 0.12, 0.6, 0.9, 1.0, 1.2]
BROW_HALF_THICKNESS = [0, 0.18, 0.34, 0.28, 0.14, 0.04, 0]


def scalp_mask(points: np.ndarray, hairline: float = 0.0) -> np.ndarray:
    """Where the hair of the head grows; `hairline` raises it over the forehead. [...]."""
    azimuth = _azimuth_about(points, -1.0)
    raised = hairline * np.interp(azimuth, [0, 40, 80], [1, 1, 0])
    height = np.interp(azimuth, HAIRLINE_AZIMUTH, HAIRLINE_HEIGHT) + raised
    return smoothstep(points[..., 1] - height, -0.25, 0.35)


def brow_mask(points: np.ndarray, height: float = 0.0, thickness: float = 1.0) -> np.ndarray:
    """Where the brows grow, raised by `height` and scaled in thickness. [...]."""
    station = (np.abs(points[..., 0]) - BROW_INNER) / (BROW_OUTER - BROW_INNER)
    half = thickness * np.interp(station, BROW_STATION, BROW_HALF_THICKNESS)
    from_line = np.abs(points[..., 1] - brow_line(station) - height)
    on_brow = (points[..., 2] > 2) & (station > -0.05) & (station < 1.03)
    return (1 - smoothstep(from_line, 0.55 * half, 1.15 * half + 0.02)) * on_brow


def brow_line(station: np.ndarray) -> np.ndarray:
    """Height of the brow's middle line, from its inner (0) to its outer end (1). [...]."""
    tail = np.clip(station - 0.62, 0, 0.58)
    return 3.98 + 0.42 * np.sin(np.clip(station, 0, 1) * np.pi * 0.62) - 0.60 * tail**1.3


def beard_mask(points: np.ndarray) -> np.ndarray:
    """Where a full beard grows, moustache included and lips not left out. [...]."""
    azimuth = _azimuth_about(points, -0.5)
    below_top = points[..., 1] - np.interp(azimuth, BEARD_AZIMUTH, BEARD_TOP)
    above_bottom = smoothstep(points[..., 1], BEARD_BOTTOM - 0.5, BEARD_BOTTOM + 0.4)
    in_front = (1 - smoothstep(azimuth, 76, 86)) * smoothstep(points[..., 2], -0.6, 0.8)
    return (1 - smoothstep(below_top, -0.3, 0.25)) * above_bottom * in_front


def lip_mask(points: np.ndarray, row_y: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """The vermilion of both lips; azimuths may be signed or not. [...]."""
    station = np.clip(np.abs(azimuth) / MOUTH_CORNER, 0, 1.2)
    top, bottom = lip_borders(station)
    above_bottom = smoothstep(row_y, bottom - 0.07, bottom + 0.07)
    below_top = 1 - smoothstep(row_y, top - 0.07, top + 0.07)
    # Signed azimuths interpolated over a face at the back of the head pass through zero there.
    in_front = smoothstep(points[..., 2], 0, 1)
    return above_bottom * below_top * (1 - smoothstep(station, 0.97, 1.03)) * in_front


def lip_borders(station: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row heights of the upper and the lower lip's border, from the middle (0) to a corner (1)."""
    bow = 0.10 * np.exp(-(((station - 0.22) / 0.16) ** 2)) - 0.12 * np.exp(-((station / 0.10) ** 2))
    top = MOUTH_LINE + (0.60 + bow) * np.maximum(1 - station**2.2, 0) ** 0.75
    bottom = MOUTH_LINE - 0.86 * np.maximum(1 - station**2.4, 0) ** 0.62
    return top, bottom


def cloth_mask(points: np.ndarray, line: float = -13.6) -> np.ndarray:
    """What clothes cover: everything below a collar that hangs lower in front. [...]."""
    collar = line - 1.3 * np.clip((points[..., 2] + 3) / 5, -0.5, 1.2)
    return 1 - smoothstep(points[..., 1] - collar, -0.05, 0.05)


def _azimuth_about(points: np.ndarray, depth: float) -> np.ndarray:
    """Angle in degrees from the front, about a vertical axis at the given z; 0 to 180. [...]."""
    return np.degrees(np.arctan2(np.abs(points[..., 0]), points[..., 2] - depth))
