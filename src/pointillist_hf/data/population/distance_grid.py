# SPDX-License-Identifier: Apache-2.0
"""The sculpted head as a grid of distances, for growth that must not enter it.

Unit centimetres, template frame: x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ...rigs.procedural.sculpt import head_distance
from .strands import unit


@dataclass(frozen=True)
class DistanceGrid:
    """Signed distance to the head and its gradient, sampled on the left half of space."""

    origin: np.ndarray  # [3] cm
    spacing: float  # cm
    samples: np.ndarray  # [X, Y, Z, 4] distance in cm, then unit gradient

    def sample(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Trilinear values, mirrored on the right; outside the box its border counts.

        Args:
            points: cm. [N, 3]

        Returns:
            Distances in cm [N], unit outward directions [N, 3].
        """
        mirrored = np.concatenate([np.abs(points[:, :1]), points[:, 1:]], axis=1)
        cells = np.array(self.samples.shape[:3]) - 1
        position = np.clip((mirrored - self.origin) / self.spacing, 0, cells - 1e-6)
        corner = position.astype(np.int64)
        high = position - corner
        weights = np.stack([1 - high, high])  # [2, N, 3]

        strides = np.array([(cells[1] + 1) * (cells[2] + 1), cells[2] + 1, 1])
        start, flat = corner @ strides, self.samples.reshape(-1, 4)
        values = np.zeros((len(points), 4))
        for i, j, k in np.ndindex(2, 2, 2):
            weight = weights[i, :, 0] * weights[j, :, 1] * weights[k, :, 2]
            values += weight[:, None] * flat[start + strides @ (i, j, k)]
        mirror = np.where(points[:, :1] < 0, [-1.0, 1.0, 1.0], 1.0)
        return values[:, 0], unit(values[:, 1:] * mirror)


@cache
def build_distance_grid(spacing: float = 0.5) -> DistanceGrid:
    """Samples around head and shoulders; growth asks so often that they pay off at once."""
    origin, end = np.array([-spacing, -28.0, -18.0]), np.array([16.0, 20.0, 14.0])
    axes = [np.arange(low, high + spacing, spacing) for low, high in zip(origin, end, strict=True)]
    slices = [
        head_distance(np.stack(np.meshgrid(x, *axes[1:], indexing="ij"), axis=-1)[0], lids=False)
        for x in axes[0]
    ]
    distances = np.stack(slices)
    gradient = unit(np.stack(np.gradient(distances, spacing), axis=-1))
    samples = np.concatenate([distances[..., None], gradient], axis=-1).astype(np.float32)
    return DistanceGrid(origin=origin, spacing=spacing, samples=samples)
