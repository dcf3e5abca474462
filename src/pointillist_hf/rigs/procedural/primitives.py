# SPDX-License-Identifier: Apache-2.0
"""Signed-distance primitives that blend smoothly into, or carve smoothly out of, each other.

Centimetres; distances are negative inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid, turned about the vertical axis by `yaw` degrees."""

    name: str
    centre: Vector
    radii: Vector
    blend: float = 0.0  # width of the transition to the parts before it
    _: KW_ONLY
    yaw: float = 0.0
    carve: bool = False

    def distance(self, points: np.ndarray) -> np.ndarray:
        """First-order distance, exact only on the surface. [...]."""
        offsets = points - np.asarray(self.centre)
        if self.yaw:
            cos, sin = np.cos(np.radians(self.yaw)), np.sin(np.radians(self.yaw))
            offsets = offsets @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        scaled = length(offsets / np.asarray(self.radii))
        gradient = length(offsets / np.square(self.radii))
        return scaled * (scaled - 1) / np.maximum(gradient, 1e-9)


@dataclass(frozen=True)
class Limb:
    """A chain of round cones through joints, each joint with its own radius."""

    name: str
    joints: Sequence[Vector]
    radii: Sequence[float]
    blend: float = 0.0
    _: KW_ONLY
    inner_blend: float = 0.0  # between the cones of the chain
    carve: bool = False

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance to the union of the cones. [...]."""
        total = _cone_distance(points, self.joints[:2], self.radii[:2])
        for k in range(1, len(self.joints) - 1):
            cone = _cone_distance(points, self.joints[k : k + 2], self.radii[k : k + 2])
            total = smooth_min(total, cone, self.inner_blend)
        return total


@dataclass(frozen=True)
class Group:
    """Parts joined among themselves before they meet the rest."""

    name: str
    parts: Sequence[Ellipsoid | Limb]
    blend: float = 0.0
    _: KW_ONLY
    carve: bool = False

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance to the joined parts. [...]."""
        return join_parts(self.parts, points)


def join_parts(parts: Sequence[Ellipsoid | Limb | Group], points: np.ndarray) -> np.ndarray:
    """Signed distance to the parts, each added to or carved from those before it. [...]."""
    total = parts[0].distance(points)
    for part in parts[1:]:
        distance = part.distance(points)
        if part.carve:
            total = -smooth_min(-total, distance, part.blend)
        else:
            total = smooth_min(total, distance, part.blend)
    return total


def smooth_min(first: np.ndarray, second: np.ndarray, blend: float) -> np.ndarray:
    """Minimum of two distances, rounded where they differ by less than `blend`."""
    nearest = np.minimum(first, second)
    if blend == 0:
        return nearest
    overlap = np.maximum(blend - np.abs(first - second), 0) / blend
    return nearest - overlap * overlap * blend / 4


def length(offsets: np.ndarray) -> np.ndarray:
    """Euclidean norm over the last axis; for three coordinates much faster than numpy's own."""
    return np.sqrt(np.einsum("...i,...i->...", offsets, offsets))


def _cone_distance(
    points: np.ndarray, ends: Sequence[Vector], radii: Sequence[float]
) -> np.ndarray:
    """Signed distance to a cone with rounded ends. [...]."""
    start, end = np.asarray(ends)
    axis, offsets = end - start, points - start
    along = np.clip(offsets @ axis / (axis @ axis), 0, 1)
    radius = radii[0] + (radii[1] - radii[0]) * along
    return length(offsets - along[..., None] * axis) - radius
