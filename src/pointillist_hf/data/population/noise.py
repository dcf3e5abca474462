# SPDX-License-Identifier: Apache-2.0
"""Value noise over points in space, for skin, fabric and irises."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike

PERIOD = 64  # lattice cells after which the noise repeats; a power of two


def value_noise(points: np.ndarray, frequency: ArrayLike, *, shift: float = 0.0) -> np.ndarray:
    """Smooth noise in [0, 1] with one random value per lattice cell.

    A table of random numbers takes the place of a hash: eight look-ups are far cheaper in numpy
    than eight chains of integer arithmetic.

    Args:
        points: [N, 3].
        frequency: Cells per unit; one number, or one per axis.
        shift: Moves the pattern, so that the same points get another one.
    """
    scaled = points.astype(np.float32) * np.asarray(frequency, np.float32) + np.float32(shift)
    cells = np.floor(scaled)
    x, y, z = (fraction * fraction * (3 - 2 * fraction) for fraction in (scaled - cells).T)
    i, j, k = (cells.astype(np.int64) % PERIOD).T
    corner = (i * PERIOD + j) * PERIOD + k
    along_x = np.where(i == PERIOD - 1, PERIOD**2 - PERIOD**3, PERIOD**2)
    along_y = np.where(j == PERIOD - 1, PERIOD - PERIOD**2, PERIOD)
    along_z = np.where(k == PERIOD - 1, 1 - PERIOD, 1)
    table = _lattice_values()

    def edge(start: np.ndarray) -> np.ndarray:
        low = table[start]
        return low + (table[start + along_z] - low) * z

    def side(start: np.ndarray) -> np.ndarray:
        low = edge(start)
        return low + (edge(start + along_y) - low) * y

    low = side(corner)
    return low + (side(corner + along_x) - low) * x


@cache
def _lattice_values() -> np.ndarray:
    """One number in [0, 1) per lattice point, the same on every machine."""
    return np.random.default_rng(2024).random(PERIOD**3, dtype=np.float32)
