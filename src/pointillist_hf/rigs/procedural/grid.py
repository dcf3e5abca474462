# SPDX-License-Identifier: Apache-2.0
"""The skin as a grid of rows and columns, cast outwards from the head's axis onto the sculpt.

Centimetres and degrees; x points to the subject's left, y up, z out of the face. Column 0 runs
down the middle of the face, azimuths grow to the subject's left. The rows bend so that one runs
along the lids and one along the lips, where the mesh is later slit open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .fields import bell, smoothstep
from .primitives import Vector
from .sculpt import cast_rays

Resolution = Literal[
    "full",  # 4,882 vertices, 9,504 faces
    "low",  # 1,932 vertices, 3,682 faces: tests and tiny models
]
INNER_CANTHUS, OUTER_CANTHUS, MOUTH_CORNER = 14.5, 42.0, 20.5  # columns, degrees
EYE_LINE, MOUTH_LINE = 2.5, -3.92  # rows, heights in front
EYE_ROW, MOUTH_ROW = 14, 30  # of the full grid
CROWN_ORIGIN: Vector = (0, 5.2, -2.0)

HALF_COLUMNS = {
    "full": (
        *(0, 2.2, 4.4, 6.6, 8.8, 10.8, 12.6, 14.5, 16.4, 18.4, 20.5, 22.7, 25, 27.4, 29.8, 32.2),
        *(34.6, 37, 39.5, 42, 45.5, 50, 55.5, 61.5, 67.5, 74, 81, 88, 96, 105, 115, 125, 136),
        *(147, 158, 169, 180),
    ),
    "low": (
        *(0, 4.4, 8.8, 14.5, 18.4, 20.5, 25, 29.8, 34.6, 42, 50, 61.5, 78, 96, 115, 136, 158),
        180,
    ),
}
LOW_ROWS = (
    *(0, 2, 4, 6, 8, 10, 12, 13, 14, 15, 17, 19, 21, 22, 24, 26, 28, 29, 30, 31, 32, 34, 36, 38),
    *(40, 42, 43, 45, 47, 49, 51),
)
# Origin height in front and behind, origin z (cm); ray elevation in front and behind (degrees).
CRANIUM_ROWS = [
    *[(5.2, 5.2, -2.0, 79, 79), (5.2, 5.2, -2.0, 67, 67), (5.2, 5.2, -2.0, 55, 54)],
    *[(5.2, 5.2, -2.0, 43.5, 41), (5.2, 5.2, -1.8, 33, 29), (5.2, 5.0, -1.4, 23, 18)],
    *[(5.2, 4.7, -1.0, 14, 9), (5.3, 4.3, -0.6, 6, 3), (5.15, 3.9, -0.3, 1, 0)],
]
# Level rays from z = 0: origin height in front and behind.
FACE_ROWS = [
    *[(4.6, 3.5), (4.15, 3.1), (3.7, 2.75), (3.3, 2.45), (2.92, 2.15)],
    *[(EYE_LINE, 1.85), (2.1, 1.55), (1.7, 1.25), (1.25, 0.9), (0.75, 0.55), (0.25, 0.2)],
    *[(-0.25, -0.1), (-0.66, -0.4), (-1.02, -0.7), (-1.36, -0.95), (-1.70, -1.2)],
    *[(-2.1, -1.45), (-2.55, -1.7), (-2.95, -1.95), (-3.3, -2.2), (-3.6, -2.4)],
    *[(MOUTH_LINE, -2.6), (-4.24, -2.8), (-4.58, -3.0), (-4.94, -3.25), (-5.35, -3.5)],
    *[(-5.8, -3.8), (-6.25, -4.1), (-6.7, -4.45)],
]
JAW_AND_NECK_ROWS = [
    *[(-6.95, -4.8, 0, -7, 0), (-6.75, -5.15, 0, -14, 0), (-6.4, -5.5, 0, -22, 0)],
    *[(-6.1, -5.9, 0, -31, 0), (-6.0, -6.4, 0, -41, 0), (-7.7, -7.1, -1.5, -19, 0)],
    *[(-9.1, -8.1, -2.4, -8, 0), (-10.6, -9.4, -2.8, 0, 0), (-12.2, -11.0, -2.9, 0, 4)],
    *[(-13.8, -12.6, -3.0, 2, 6), (-15.4, -14.4, -3.0, 0, 6), (-17.2, -16.6, -3.0, 0, 3)],
    *[(-19.0, -18.8, -3.0, 0, 0), (-20.6, -20.6, -3.0, 0, 0)],
]
ROWS = np.array(
    [*CRANIUM_ROWS, *[(*heights, 0, 0, 0) for heights in FACE_ROWS], *JAW_AND_NECK_ROWS], float
)


@dataclass(frozen=True)
class Grid:
    """The skin's points before the lids and the lips are slit open."""

    points: np.ndarray  # [R, C, 3], centimetres; the eye row lies on the upper lid's edge
    lower_lid: np.ndarray  # [C, 3], the eye row once more, on the lower lid's edge
    crown: np.ndarray  # [1, 3]
    row_y: np.ndarray  # [R, C], ray origin heights before the rows bend around eyes and mouth
    azimuth: np.ndarray  # [C], degrees in (-180, 180]
    eye_row: int
    mouth_row: int


def cast_grid(resolution: Resolution) -> Grid:
    """The sculpt's surface at the chosen resolution, mirror symmetric to the last bit."""
    kept = np.arange(len(ROWS)) if resolution == "full" else np.array(LOW_ROWS)
    half = np.array(HALF_COLUMNS[resolution], float)
    eye_row, mouth_row = int(np.searchsorted(kept, EYE_ROW)), int(np.searchsorted(kept, MOUTH_ROW))
    row_y = ray_heights(ROWS[kept], half)
    upper, lower = bend_rows(row_y, half)
    points = _cast_half(ROWS[kept], half, upper)
    lower_lid = _cast_half(ROWS[kept][[eye_row]], half, lower[[eye_row]])
    azimuth = np.concatenate([half, -half[-2:0:-1]])
    return Grid(
        points=_relax_jaw(_mirror_columns(points), azimuth, mouth_row),
        lower_lid=_mirror_columns(lower_lid)[0],
        crown=cast_rays(np.array([CROWN_ORIGIN], float), np.array([[0.0, 1.0, 0.0]])),
        row_y=np.concatenate([row_y, row_y[:, -2:0:-1]], axis=1),
        azimuth=azimuth,
        eye_row=eye_row,
        mouth_row=mouth_row,
    )


def ray_heights(rows: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Ray origin heights of unbent rows, easing from the front to the back. [R, C]."""
    front, back = rows[:, 0, None], rows[:, 1, None]
    return back + (front - back) * smoothstep((172 - azimuth) / 112)


def bend_rows(row_y: np.ndarray, azimuth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights bent around eyes and mouth: for the grid, and with the eye row on the lower lid."""
    canthal_line, upper_lid, lower_lid = lid_curves(azimuth)
    from_eye, from_mouth = row_y - EYE_LINE, row_y - MOUTH_LINE
    bent = row_y + canthal_line * bell(from_eye, 0, 1.15) * smoothstep((75 - azimuth) / 25)
    bent = bent + mouth_curve(azimuth) * bell(from_mouth, 0, 0.8) * smoothstep((45 - azimuth) / 20)
    # The tolerance puts the eye row itself on the upper lid.
    opening = np.where(from_eye > -1e-9, upper_lid, -lower_lid) * bell(from_eye, 0, 0.95)
    return bent + opening, bent - lower_lid


def lid_curves(azimuth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height of the canthal line, and the opening above and below it, by column. [C] each."""
    t = np.clip((azimuth - INNER_CANTHUS) / (OUTER_CANTHUS - INNER_CANTHUS), 0, 1)
    line = np.interp(azimuth, [0, INNER_CANTHUS, OUTER_CANTHUS, 70], [0, -0.12, 0.16, 0])
    upper = 0.55 * np.maximum(np.sin(np.pi * t**0.88), 0) ** 0.72
    lower = 0.35 * np.maximum(np.sin(np.pi * t**1.1), 0) ** 0.85
    return line, upper, lower


def mouth_curve(azimuth: np.ndarray) -> np.ndarray:
    """Height of the lip line above the mouth row, a shallow bow with raised corners. [C]."""
    t = np.clip(azimuth / MOUTH_CORNER, 0, 1)
    return -0.05 * np.cos(2 * np.pi * t) * (1 - t) + 0.09 * t**2


def _cast_half(rows: np.ndarray, azimuth: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Points where the rays of the left half leave the head. [R, C, 3]."""
    frontness = ((1 + np.cos(np.radians(azimuth))) / 2) ** 1.3
    elevation = np.radians(rows[:, 4, None] + (rows[:, 3, None] - rows[:, 4, None]) * frontness)
    level, turn = np.cos(elevation), np.radians(azimuth)
    directions = np.stack([level * np.sin(turn), np.sin(elevation), level * np.cos(turn)], axis=-1)
    depth = np.broadcast_to(rows[:, 2, None], heights.shape)
    origins = np.stack([np.zeros_like(heights), heights, depth], axis=-1)
    points = cast_rays(origins.reshape(-1, 3), directions.reshape(-1, 3)).reshape(origins.shape)
    points[:, [0, -1], 0] = 0  # sin(180 degrees) is not quite zero
    return points


def _mirror_columns(half: np.ndarray) -> np.ndarray:
    """All columns from those of the left half. [R, C, 3]."""
    return np.concatenate([half, half[:, -2:0:-1] * (-1, 1, 1)], axis=1)


def _relax_jaw(points: np.ndarray, azimuth: np.ndarray, mouth_row: int) -> np.ndarray:
    """The points with those under the jaw evened out, where neighbouring rays diverge."""
    stations = np.add(mouth_row, [4, 7, 14, 16])
    weight = np.interp(np.arange(len(points)), stations, [0, 1, 1, 0])[:, None]
    weight = (weight * smoothstep((125 - np.abs(azimuth)) / 35))[1:-1, :, None]
    for _ in range(4):
        inner = points[1:-1]
        across = np.roll(inner, 1, axis=1) + np.roll(inner, -1, axis=1)
        mean = 0.25 * (points[:-2] + points[2:]) + 0.25 * across
        points = np.concatenate([points[:1], inner + 0.5 * weight * (mean - inner), points[-1:]])
    return points
