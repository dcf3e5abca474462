# SPDX-License-Identifier: Apache-2.0
"""The ears: a sculpt of their own, sampled on rings around the concha.

Centimetres. A place on the ear is (back, up, out): backwards and upwards in the ear's plane, and
away from the skull. The parts are named as in anatomy.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .fields import SIDES, on_side
from .mesh_builder import MeshBuilder, close_ring
from .primitives import Ellipsoid, Limb, join_parts
from .sculpt import cast_rays

EAR_CENTRE = np.array([7.0, 0.65, -0.8])  # the left one
EAR_TILT, EAR_ANGLE = np.radians(12), np.radians(15)  # backwards; away from the skull
CONCHA = (0.28, -0.3)  # where all spokes meet, back and up
# The outer edge, from behind over the top and the front to the lobe: back and up.
OUTLINE = [
    *[(2.16, 0.30), (2.20, 0.90), (2.02, 1.60), (1.60, 2.28), (1.00, 2.70), (0.30, 2.82)],
    *[(-0.32, 2.48), (-0.66, 1.80), (-0.80, 1.00), (-0.84, 0.20), (-0.84, -0.60)],
    *[(-0.80, -1.30), (-0.70, -2.00), (-0.42, -2.60), (0.10, -2.92), (0.68, -2.86)],
    *[(1.12, -2.42), (1.36, -1.80), (1.66, -1.10), (1.96, -0.40)],
]

EAR = (
    Ellipsoid("auricle", (0.55, 0.10, -0.45), (1.75, 3.00, 0.92)),
    Ellipsoid("lobe", (0.34, -2.10, 0.10), (1.00, 0.98, 0.50), 0.5),
    Limb(
        "scapha",
        [(1.42, -0.75, 0.62), (1.55, 0.20, 0.72), (1.42, 1.15, 0.72), (0.95, 1.95, 0.72)],
        [0.24, 0.30, 0.30, 0.26],
        0.25,
        carve=True,
    ),
    Ellipsoid("concha", (0.34, -0.48, 1.00), (0.78, 0.95, 0.86), 0.22, carve=True),
    Ellipsoid("cymba", (0.42, 0.62, 0.80), (0.52, 0.34, 0.52), 0.25, carve=True),
    Limb(
        "helix",
        [(0.30, 0.10, 0.10), (-0.36, 0.45, 0.42), (-0.50, 1.20, 0.60), (-0.28, 2.05, 0.66),
         (0.40, 2.52, 0.66), (1.10, 2.28, 0.60), (1.76, 1.50, 0.60), (1.94, 0.45, 0.56),
         (1.70, -0.70, 0.46), (1.28, -1.60, 0.36)],
        [0.15, 0.21, 0.23, 0.23, 0.24, 0.25, 0.25, 0.24, 0.22, 0.18],
        0.18,
        inner_blend=0.12,
    ),
    Limb(
        "antihelix",
        [(0.36, -1.45, 0.40), (0.86, -1.05, 0.50), (1.10, -0.25, 0.58), (1.05, 0.60, 0.58),
         (0.90, 1.10, 0.50), (0.68, 1.80, 0.34)],
        [0.24, 0.25, 0.27, 0.27, 0.25, 0.22],
        0.25,
        inner_blend=0.15,
    ),
    Limb("lower crus", [(0.95, 0.95, 0.52), (0.10, 1.15, 0.40)], [0.22, 0.16], 0.2),
    Ellipsoid("triangular fossa", (0.28, 1.66, 0.85), (0.42, 0.30, 0.42), 0.2, carve=True),
    Ellipsoid("tragus", (-0.60, -0.55, 0.42), (0.46, 0.56, 0.40), 0.3),
    Ellipsoid("notch", (-0.06, -1.22, 0.85), (0.26, 0.34, 0.48), 0.2, carve=True),
)  # fmt: skip

# Rings from the concha to the edge of the helix, as fractions of the outline.
RINGS = (0.24, 0.42, 0.55, 0.66, 0.77, 0.87, 0.95)
# Fraction of the outline, height: the helix's edge, and the ear's back down to the skull.
BACK_RINGS = [(1.0, 0.16), (0.97, -0.16), (0.52, -1.35)]
CEILING, FLOOR = 1.5, -0.9  # of the front, above and below everything


def add_ear(mesh: MeshBuilder, side: str, num_spokes: int) -> None:
    """Add an ear as rings around the concha, out to the helix and round to its back."""
    sign, part = SIDES[side], f"ear_{side}"
    outline = _outline(num_spokes)
    concha = np.array(CONCHA)
    tip, *rings = (
        concha + (outline - concha) * reach for reach in (0, *RINGS, *(r for r, _ in BACK_RINGS))
    )
    front = [np.column_stack([ring, ear_height(ring)]) for ring in (tip[:1], *rings[: len(RINGS)])]
    heights = [height for _, height in BACK_RINGS]
    # The edge follows the crest of the helix and of the lobe, the back does not.
    edge = front[-1][:, 2] - 0.24
    back = [np.column_stack([rings[len(RINGS)], edge])]
    for ring, height in zip(rings[len(RINGS) + 1 :], heights[1:], strict=True):
        back.append(np.column_stack([ring, np.minimum(height, edge - 0.1)]))
    axes = np.stack(ear_axes())
    ids = [mesh.add_vertices(on_side(EAR_CENTRE + ring @ axes, sign)) for ring in (*front, *back)]
    mesh.add_fan(int(ids[0][0]), ids[1], part, flip=sign < 0)
    for inner, outer in pairwise(ids[1:]):
        mesh.add_strip(close_ring(inner), close_ring(outer), part, flip=sign < 0)


def ear_height(plane: np.ndarray) -> np.ndarray:
    """Height of the ear's front over its plane, at places back and up. [N] from [N, 2]."""
    origins = np.column_stack([plane, np.full(len(plane), CEILING)])
    # Seen from above, so that the helix hides what it overhangs; the rays start outside.
    surface = cast_rays(
        origins,
        np.tile([0.0, 0.0, -1.0], (len(plane), 1)),
        reach=CEILING - FLOOR,
        num_samples=60,
        distance=lambda points: -join_parts(EAR, points),
    )
    return surface[:, 2]


def ear_distance(points: np.ndarray) -> np.ndarray:
    """Signed distance to the nearer ear, at places in the head's frame. [...] from [..., 3]."""
    folded = np.array(points, float)
    folded[..., 0] = np.abs(folded[..., 0])
    return join_parts(EAR, (folded - EAR_CENTRE) @ np.stack(ear_axes()).T)


def ear_axes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit axes of the left ear: backwards and upwards in its plane, and away from the skull."""
    up = np.array([0, np.cos(EAR_TILT), -np.sin(EAR_TILT)])
    level = np.cos(EAR_ANGLE)
    back = np.array([np.sin(EAR_ANGLE), -np.sin(EAR_TILT) * level, -np.cos(EAR_TILT) * level])
    back = back - up * (back @ up)
    back = back / np.linalg.norm(back)
    outward = np.cross(up, back)
    return back, up, outward * np.sign(outward[0])


def _outline(num_spokes: int) -> np.ndarray:
    """Where the spokes, at equal angles around the concha, meet the ear's outer edge. [N, 2]."""
    edge = np.array(OUTLINE) - CONCHA
    turn = np.arange(num_spokes) * 2 * np.pi / num_spokes
    known = np.arctan2(edge[:, 1], edge[:, 0])
    radius = np.interp(turn, known, np.hypot(*edge.T), period=2 * np.pi)
    return CONCHA + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
