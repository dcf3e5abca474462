# SPDX-License-Identifier: Apache-2.0
"""Lid rims and eyeballs.

Centimetres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .fields import SIDES, on_side
from .mesh_builder import MeshBuilder, close_ring
from .sculpt import EYE_CENTRE, EYE_RADIUS

EYEBALL_RINGS = np.radians([7.5, 14.5, 22.5, 29.5, 33, 45, 62, 85, 115, 150])  # iris ends at 29.5
NUM_SEGMENTS = 14
# Inner edges of the lids, over the eyeball: what is half shut must not sink into it.
RIM_HEIGHT = 0.10


def add_lid_rim(mesh: MeshBuilder, edge: np.ndarray, side: str, lid: str) -> np.ndarray:
    """Ids of the lid's inner edge, which lies close to the eyeball. Ordered as `edge`."""
    centre = on_side(EYE_CENTRE, SIDES[side])
    tuck = np.array([0, 0.05 if lid == "upper" else -0.05, -0.06])
    tucked = tuck + _unit(mesh.vertices[edge] - centre) * (EYE_RADIUS + 0.015)
    rim = mesh.add_vertices(centre + _unit(tucked) * (EYE_RADIUS + RIM_HEIGHT))
    mesh.add_strip(edge, rim, "lid", flip=(side == "left") != (lid == "upper"))
    return rim


def add_eyeball(mesh: MeshBuilder, side: str) -> None:
    """Add a sphere of rings around the line of sight, from the pupil to the back."""
    sign, part = SIDES[side], f"eye_{side}"
    turn = np.arange(NUM_SEGMENTS) * 2 * np.pi / NUM_SEGMENTS
    around = np.stack([np.cos(turn), np.sin(turn), np.zeros(NUM_SEGMENTS)], axis=-1)
    directions = [np.sin(a) * around + (0, 0, np.cos(a)) for a in EYEBALL_RINGS]
    pole = np.array([0, 0, 1.0])
    front, *rings, back = (
        mesh.add_vertices(on_side(EYE_CENTRE + EYE_RADIUS * direction, sign))
        for direction in (pole, *directions, -pole)
    )
    mesh.add_fan(int(front), rings[0], part, flip=sign < 0)
    mesh.add_fan(int(back), rings[-1], part, flip=sign > 0)
    for inner, outer in pairwise(rings):
        mesh.add_strip(close_ring(inner), close_ring(outer), part, flip=sign < 0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length one over the last axis."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
