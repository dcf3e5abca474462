# SPDX-License-Identifier: Apache-2.0
"""What the skin's grid does not hold: lid rims, the mouth's inside, teeth, ears and eyeballs.

Centimetres; x points to the subject's left, y up, z out of the face. Each function adds its part
to a mesh and returns the ids that others need.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .fields import SIDES, on_side, smoothstep
from .grid import MOUTH_LINE
from .mesh_builder import MeshBuilder, close_ring
from .sculpt import EYE_CENTRE, EYE_RADIUS

EAR_CENTRE = np.array([7.0, 0.65, -0.8])  # the left one
EAR_TILT, EAR_ANGLE = np.radians(12), np.radians(22)  # backwards; away from the skull
CONCHA = (0.05, -0.3)  # back and up from the ear's centre
# From the concha to the helix: fraction of the outline, height over the skull's side.
EAR_PROFILE = [(0.24, -0.12), (0.46, 0.16), (0.64, 0.36), (0.80, 0.20), (0.94, 0.50), (1.03, 0.26)]
EAR_BACK = [(0.98, -0.28), (0.62, -0.75)]

EYEBALL_RINGS = np.radians([7.5, 14.5, 22.5, 29.5, 33, 45, 62, 85, 115, 150])  # iris ends at 29.5

# Rows of the mouth bag: depth behind the lips, rise, sideways scale.
UPPER_BAG = [(0.45, 0.12, 1.0), (0.95, 0.75, 1.04), (2.6, 1.0, 1.0)]
LOWER_BAG = [(0.45, -0.14, 1.0), (1.0, -0.85, 1.04), (2.6, -0.75, 1.0)]
THROAT = (4.6, 0.1, 0.8)

# Half-width and depth of the dental arch, then row heights; the last row is the teeth's back.
TEETH = {
    "teeth_upper": (2.45, 6.85, (-3.0, -3.65, -4.28, -4.2)),
    "teeth_lower": (2.2, 6.61, (-5.15, -4.7, -4.25, -4.3)),
}


def add_lid_rim(mesh: MeshBuilder, edge: np.ndarray, side: str, lid: str) -> np.ndarray:
    """Ids of the lid's inner edge, which lies close to the eyeball. Ordered as `edge`."""
    centre = on_side(EYE_CENTRE, SIDES[side])
    tuck = np.array([0, 0.05 if lid == "upper" else -0.05, -0.06])
    tucked = tuck + _unit(mesh.vertices[edge] - centre) * (EYE_RADIUS + 0.015)
    rim = mesh.add_vertices(centre + _unit(tucked) * (EYE_RADIUS + 0.01))
    mesh.add_strip(edge, rim, "lid", flip=(side == "left") != (lid == "upper"))
    return rim


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
    for lip, rows in bag.items():
        rows.append(ids)
        for front, back in zip([edges[lip], *rows[:-1]], rows, strict=True):
            mesh.add_strip(front, back, "mouth", flip=lip == "upper")
    return bag


def add_teeth(mesh: MeshBuilder, part: str) -> None:
    """Add one row of teeth as a curved sheet."""
    half_width, depth, heights = TEETH[part]
    x = np.sin(np.linspace(-1, 1, 13) * np.pi / 2 * 0.92) / np.sin(np.pi / 2 * 0.92) * half_width
    z = depth - 0.25 * np.abs(x) ** 1.9
    arch = 0.10 * (x / half_width) ** 2
    rows = [mesh.add_vertices(np.stack([x, y + arch, z], axis=-1)) for y in heights[:3]]
    back = np.stack([x, heights[3] + arch, z - 0.45], axis=-1)
    rows.append(mesh.add_vertices(back))
    for first, second in pairwise(rows):
        mesh.add_strip(first, second, part, flip=part == "teeth_lower")


def add_eyeball(mesh: MeshBuilder, side: str) -> None:
    """Add a sphere of rings around the line of sight, from the pupil to the back."""
    centre = on_side(EYE_CENTRE, SIDES[side])
    part = f"eye_{side}"
    turn = np.arange(14) * 2 * np.pi / 14
    around = np.stack([np.cos(turn), np.sin(turn), np.zeros(14)], axis=-1)
    pole = np.array([0, 0, EYE_RADIUS])
    front = mesh.add_vertices(centre + pole)
    rings = [
        mesh.add_vertices(centre + EYE_RADIUS * (np.sin(a) * around + (0, 0, np.cos(a))))
        for a in EYEBALL_RINGS
    ]
    back = mesh.add_vertices(centre - pole)
    mesh.add_fan(int(front), rings[0], part)
    mesh.add_fan(int(back), rings[-1], part, flip=True)
    for inner, outer in pairwise(rings):
        mesh.add_strip(close_ring(inner), close_ring(outer), part)


def add_ear(mesh: MeshBuilder, side: str) -> None:
    """Add an ear as rings around the concha, out to the helix and round to its back."""
    sign, part = SIDES[side], f"ear_{side}"
    back, up, outward = ear_axes()
    turn = np.arange(16) * 2 * np.pi / 16  # 0 points back, 90 degrees up
    outline = _ear_outline(turn)
    # The tragus in front is flat, the lobe below is flat and slightly raised.
    tragus = np.exp(-(((np.degrees(turn) - 180) / 60) ** 2))
    lobe = smoothstep((-np.sin(turn) - 0.45) / 0.4)
    centre = EAR_CENTRE + CONCHA[0] * back + CONCHA[1] * up
    tip = mesh.add_vertices(on_side(centre - 0.22 * outward, sign))
    rings = []
    for reach, height in [*EAR_PROFILE, *EAR_BACK]:
        heights = np.full(16, height)
        if (reach, height) in EAR_PROFILE:
            heights = height * (1 - 0.75 * tragus) * (1 - 0.7 * lobe)
            heights = heights + 0.12 * lobe - 0.10 * tragus * reach
        plane = np.asarray(CONCHA) + (outline - CONCHA) * reach
        ring = EAR_CENTRE + plane @ np.stack([back, up]) + heights[:, None] * outward
        rings.append(mesh.add_vertices(on_side(ring, sign)))
    mesh.add_fan(int(tip), rings[0], part, flip=sign > 0)
    for inner, outer in pairwise(rings):
        mesh.add_strip(close_ring(inner), close_ring(outer), part, flip=sign > 0)


def ear_axes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit axes of the left ear: backwards and upwards in its plane, and away from the skull."""
    up = np.array([0, np.cos(EAR_TILT), -np.sin(EAR_TILT)])
    level = np.cos(EAR_ANGLE)
    back = np.array([np.sin(EAR_ANGLE), -np.sin(EAR_TILT) * level, -np.cos(EAR_TILT) * level])
    back = _unit(back - up * (back @ up))
    outward = np.cross(up, back)
    return back, up, outward * np.sign(outward[0])


def _ear_outline(turn: np.ndarray) -> np.ndarray:
    """The helix in the ear's plane, back then up: an egg, wider on top. [N, 2]."""
    cos, sin = np.cos(turn), np.sin(turn)
    width = np.where(cos > 0, 2.05, 0.75) * (1 + 0.10 * sin) * (1 - 0.34 * smoothstep(-sin))
    height = np.where(sin > 0, 2.9, 2.95)
    back = np.sign(cos) * width * np.abs(cos) ** 0.85
    return np.stack([back, np.sign(sin) * height * np.abs(sin) ** 0.9], axis=-1)


def _behind_lip(lip: np.ndarray, depth: float, rise: float, scale: float) -> np.ndarray:
    """The lip's edge, flattened and moved into the mouth; the rise fades at the corners."""
    fade = 1 - np.abs(np.linspace(-1, 1, len(lip))) ** 8
    height = MOUTH_LINE + 0.6 * (lip[:, 1] - MOUTH_LINE) + rise * fade
    return np.stack([lip[:, 0] * scale, height, lip[:, 2] - depth], axis=-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length one over the last axis."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
