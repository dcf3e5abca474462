# SPDX-License-Identifier: Apache-2.0
"""The mouth's inside: its lining, the teeth and the tongue.

Centimetres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .grid import MOUTH_LINE
from .mesh_builder import MeshBuilder, close_ring

# Rows of the mouth bag: depth behind the lips, rise, sideways scale.
UPPER_BAG = [(0.45, 0.12, 1.0), (0.95, 0.75, 1.04), (2.6, 1.0, 1.0)]
LOWER_BAG = [(0.45, -0.14, 1.0), (1.0, -0.85, 1.04), (2.6, -0.75, 1.0)]
THROAT = (4.6, 0.1, 0.8)

# Half-width and depth of the dental arch, then row heights; the last row is the teeth's back.
TEETH = {
    "teeth_upper": (2.45, 6.85, (-3.0, -3.65, -4.28, -4.2)),
    "teeth_lower": (2.2, 6.61, (-5.15, -4.7, -4.25, -4.3)),
}
NUM_TOOTH_COLUMNS = 13

# Rings of the tongue from the tip to the root: z, height, half-width, half-thickness.
TONGUE = np.array(
    [
        *[(6.10, -4.42, 0.00, 0.00), (6.02, -4.42, 0.42, 0.10), (5.85, -4.38, 0.80, 0.20)],
        *[(5.50, -4.28, 1.16, 0.30), (5.05, -4.12, 1.36, 0.38), (4.60, -3.96, 1.40, 0.42)],
        (4.15, -3.84, 1.30, 0.40),
    ]
)
# The same rings stuck out over the lower lip, with the jaw shut.
TONGUE_OUT = np.array(
    [
        *[(9.95, -4.52, 0.00, 0.00), (9.88, -4.48, 0.46, 0.10), (9.50, -4.28, 0.84, 0.17)],
        *[(8.60, -3.88, 1.08, 0.21), (7.40, -3.66, 1.20, 0.24), (5.90, -3.72, 1.32, 0.34)],
        (4.15, -3.84, 1.30, 0.40),
    ]
)


def add_mouth_bag(mesh: MeshBuilder, edges: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Rows of ids behind the upper and the lower lip, front to back; both share their ends."""
    upper_lip, lower_lip = (mesh.vertices[edges[lip]] for lip in ("upper", "lower"))
    bag: dict[str, list[np.ndarray]] = {"upper": [], "lower": []}
    for upper_row, lower_row in zip(UPPER_BAG, LOWER_BAG, strict=True):
        upper = mesh.add_vertices(_behind_lip(upper_lip, *upper_row))
        lower = mesh.add_vertices(_behind_lip(lower_lip, *lower_row)[1:-1])
        bag["upper"].append(upper)
        bag["lower"].append(np.concatenate([upper[:1], lower, upper[-1:]]))
    depth, rise, scale = THROAT
    ids = mesh.add_vertices(np.array([0, rise, 0]) + _behind_lip(upper_lip, depth, 0, scale))
    # Split this way, no triangle at a corner consists of vertices that both lips share.
    right_half = slice(0, len(ids) // 2)
    for lip, rows in bag.items():
        rows.append(ids)
        for front, back in zip([edges[lip], *rows[:-1]], rows, strict=True):
            mesh.add_strip(front, back, "mouth", flip=lip == "lower", mirrored=right_half)
    return bag


def add_teeth(mesh: MeshBuilder, part: str) -> None:
    """Add one row of teeth as a curved sheet."""
    half_width, depth, heights = TEETH[part]
    turn = np.linspace(-1, 1, NUM_TOOTH_COLUMNS) * np.pi / 2 * 0.92
    x = np.sin(turn) / np.sin(turn[-1]) * half_width
    z = depth - 0.25 * np.abs(x) ** 1.9
    arch = 0.10 * (x / half_width) ** 2
    rows = [mesh.add_vertices(np.stack([x, y + arch, z], axis=-1)) for y in heights[:3]]
    back = np.stack([x, heights[3] + arch, z - 0.45], axis=-1)
    rows.append(mesh.add_vertices(back))
    right_half = slice(0, NUM_TOOTH_COLUMNS // 2)
    for first, second in pairwise(rows):
        mesh.add_strip(first, second, part, flip=part == "teeth_lower", mirrored=right_half)


def add_tongue(mesh: MeshBuilder, num_segments: int) -> np.ndarray:
    """Add the tongue, open where its root meets the throat. Ids, tip first, then ring by ring."""
    ids = mesh.add_vertices(tongue_points(TONGUE, num_segments))
    rings = ids[1:].reshape(-1, num_segments)
    mesh.add_fan(int(ids[0]), rings[0], "tongue")
    for inner, outer in pairwise(rings):
        right_half = slice(0, num_segments // 2)
        mesh.add_strip(close_ring(inner), close_ring(outer), "tongue", mirrored=right_half)
    return ids


def tongue_points(rings: np.ndarray, num_segments: int) -> np.ndarray:
    """The tongue's vertices: its tip, then the rings, each from the top to the right. [n, 3].

    Args:
        rings: `TONGUE` or `TONGUE_OUT`.
        num_segments: Vertices of a ring, an even number.
    """
    turn = np.arange(num_segments) * 2 * np.pi / num_segments
    z, height, half_width, half_thickness = rings[1:, :, None].swapaxes(0, 1)
    x = -np.sin(turn) * half_width
    # A furrow runs along the middle of the back.
    top = 1 - 0.35 * np.exp(-((np.sin(turn) / 0.4) ** 2)) * (np.cos(turn) > 0)
    y = height + np.cos(turn) * top * half_thickness
    points = np.stack([x, y, np.broadcast_to(z, x.shape)], axis=-1)
    tip = np.array([[0, rings[0, 1], rings[0, 0]]])
    return np.concatenate([tip, points.reshape(-1, 3)])


def _behind_lip(lip: np.ndarray, depth: float, rise: float, scale: float) -> np.ndarray:
    """The lip's edge, flattened and moved into the mouth; the rise fades at the corners."""
    fade = 1 - np.abs(np.linspace(-1, 1, len(lip))) ** 8
    height = MOUTH_LINE + 0.6 * (lip[:, 1] - MOUTH_LINE) + rise * fade
    return np.stack([lip[:, 0] * scale, height, lip[:, 2] - depth], axis=-1)
