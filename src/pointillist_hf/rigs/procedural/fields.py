# SPDX-License-Identifier: Apache-2.0
"""Smooth scalar and vector fields over points, the vocabulary of the rig's directions.

Centimetres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

SIDES = {"left": 1.0, "right": -1.0}


def smoothstep(values: ArrayLike, low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> np.ndarray:
    """Cubic ramp from 0 at `low` to 1 at `high`."""
    t = np.clip((np.asarray(values) - low) / (np.asarray(high) - low), 0, 1)
    return t * t * (3 - 2 * t)


def bell(values: ArrayLike, centre: float, width: float) -> np.ndarray:
    """Gaussian of one coordinate, 1 at the centre and 1/e one width away."""
    return np.exp(-(((np.asarray(values) - centre) / width) ** 2))


def on_side(position: ArrayLike, sign: float) -> np.ndarray:
    """A position given on the subject's left (sign +1), mirrored for the right (sign -1)."""
    return np.asarray(position, float) * (sign, 1, 1)


def vectors(x: ArrayLike = 0.0, y: ArrayLike = 0.0, z: ArrayLike = 0.0) -> np.ndarray:
    """Vector field from its three components; scalars spread over all points. [N, 3]."""
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(float)


@dataclass(frozen=True)
class Points:
    """Places at which fields are evaluated, with the fields' vocabulary as methods."""

    positions: np.ndarray  # [N, 3], centimetres
    normals: np.ndarray  # [N, 3], zero where a field must not move along the normal

    @property
    def x(self) -> np.ndarray:
        """Distance to the subject's left of the midline. [N]."""
        return self.positions[:, 0]

    @property
    def y(self) -> np.ndarray:
        """Height. [N]."""
        return self.positions[:, 1]

    @property
    def z(self) -> np.ndarray:
        """Distance to the front. [N]."""
        return self.positions[:, 2]

    @property
    def sideways(self) -> np.ndarray:
        """Sign of x, eased over the midline so that fields stay smooth there. [N]."""
        return np.sign(self.x) * smoothstep(np.abs(self.x), 0, 0.8)

    def bump(self, centre: ArrayLike, size: ArrayLike) -> np.ndarray:
        """Gaussian bump with one width per axis. [N]."""
        return np.exp(-(((self.positions - centre) / size) ** 2).sum(-1))

    def twin_bump(self, centre: ArrayLike, size: ArrayLike) -> np.ndarray:
        """Gaussian bump given on the left and mirrored to the right. [N]."""
        mirrored = np.abs(self.positions * (1, 0, 0)) + self.positions * (0, 1, 1)
        return np.exp(-(((mirrored - centre) / size) ** 2).sum(-1))
