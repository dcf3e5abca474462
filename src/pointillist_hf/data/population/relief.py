# SPDX-License-Identifier: Apache-2.0
"""How far a surface reaches along an axis, as a map: what a rigid thing has to stay clear of.

Centimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...rendering.mesh import rasterize_mesh

# The rasteriser knows pinhole cameras only; from this far its rays are parallel to 1 in 1000.
DISTANCE = 1e4


@dataclass(frozen=True)
class Relief:
    """Heights over a rectangle; -inf where there is no surface."""

    origin: np.ndarray  # [2]
    spacing: float
    heights: np.ndarray  # [columns, rows]

    def over(self, places: np.ndarray) -> np.ndarray:
        """Heights at the nearest samples; beyond the rectangle those on its border. [..., 2]"""
        cells = np.rint((places - self.origin) / self.spacing).astype(int)
        first, second = np.moveaxis(np.clip(cells, 0, np.array(self.heights.shape) - 1), -1, 0)
        return self.heights[first, second]

    def widened(self, reach: float) -> Relief:
        """The greatest height within reach of every sample, measured along both sides."""
        steps, heights = round(reach / self.spacing), self.heights
        for axis in (0, 1):
            padded = np.pad(heights, [(steps, steps)] * 2, constant_values=-np.inf)
            padded = np.lib.stride_tricks.sliding_window_view(padded, 2 * steps + 1, axis=axis)
            inner = slice(steps, -steps or None)
            heights = padded.max(-1)[(slice(None), inner) if axis == 0 else (inner, slice(None))]
        return Relief(self.origin, self.spacing, heights)


def build_relief(
    points: np.ndarray,
    faces: np.ndarray,
    *,
    low: tuple[float, float],
    high: tuple[float, float],
    spacing: float = 0.05,
) -> Relief:
    """The relief of a mesh over a rectangle.

    Args:
        points: The two coordinates of the rectangle, then the height. [V, 3]
        faces: Vertex indices. [F, 3]
        low: Corner of the rectangle.
        high: The opposite one.
        spacing: Of the samples.
    """
    columns, rows = np.rint((np.array(high) - low) / spacing).astype(int) + 1
    viewmat = np.diag([1.0, -1.0, -1.0, 1.0])
    viewmat[2, 3] = DISTANCE
    focal = DISTANCE / spacing
    K = np.array(
        [
            [focal, 0, 0.5 - low[0] / spacing],
            [0, focal, 0.5 + high[1] / spacing],
            [0, 0, 1],
        ]
    )
    depth = rasterize_mesh(points, faces, viewmat, K, int(columns), int(rows)).depth
    return Relief(np.array(low, float), spacing, (DISTANCE - depth).T[:, ::-1])
