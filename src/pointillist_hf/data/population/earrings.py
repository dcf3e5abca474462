# SPDX-License-Identifier: Apache-2.0
"""Earrings at the lobes: studs, hoops and drops.

Each is held by one face of the lobe. It hangs straight down, unless a wide jaw or neck is in the
way: then it leans on the skin.

Unit centimetres; x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ...rigs.procedural.fields import SIDES
from .accessories import Earrings
from .relief import build_relief
from .strands import unit
from .worn import Piece, RestHead

LOBE_HEIGHT = 0.75  # above the lowest point of the ear
METAL_GLOSS, STONE_GLOSS = (0.8, 35.0), (0.6, 80.0)
BEAD_STEPS, RING_STEPS = 9, 28
STUD_RADIUS, HOOP_RADIUS, DROP_LENGTH, DROP_RADIUS = 0.24, 0.95, 1.3, 0.22
HOOK_RADIUS, DROP_WIRE = 0.11, 0.045
HOOP_TURN = np.radians(35)  # of the ring against the side view
# Turns towards the side view, and leans away from the skin, that are tried in order.
TURNS, LEANS = HOOP_TURN * np.array([0.0, 0.5, 1.0]), np.radians(np.arange(0, 61, 3))
DOWN = np.array([0.0, -1, 0])


@dataclass(frozen=True)
class Lobe:
    """Where an ear is pierced."""

    sign: float
    face: int
    point: np.ndarray  # [3]
    outward: np.ndarray  # [3] unit, level


@dataclass(frozen=True)
class _Line:
    """A line of an earring, before it is bound."""

    points: np.ndarray  # [k, 3]
    across: np.ndarray  # [3] unit, at right angles to the line
    radii: np.ndarray  # [k]
    color: tuple[float, float, float]
    gloss: tuple[float, float]


def build_earrings(head: RestHead, earrings: Earrings) -> list[Piece]:
    """The pieces of a pair of earrings on a head."""
    shape = {"stud": _stud, "hoop": _hoop, "drop": _drop}[earrings.style]
    pieces = []
    for side, sign in SIDES.items():
        lobe = find_lobe(head, side, sign)
        for line in _lean_on_skin(head, lobe, shape(lobe, earrings)):
            normals = np.tile(line.across, (1, len(line.points), 1))
            lines = head.bind(line.points[None], normals, line.color, lobe.face)
            pieces.append(Piece(f"{side} earring", lines, line.radii[None], gloss=line.gloss))
    return pieces


def find_lobe(head: RestHead, side: str, sign: float) -> Lobe:
    """The middle of the outer side of an earlobe."""
    ids = np.flatnonzero(head.template.face_parts == f"ear_{side}")
    first, second, third = np.moveaxis(head.vertices[head.template.faces[ids]], 1, 0)
    centres = (first + second + third) / 3
    normals = unit(np.cross(second - first, third - first))
    lowest = head.part_points(f"ear_{side}")[:, 1].min()
    is_lobe = (centres[:, 1] < lowest + LOBE_HEIGHT) & (sign * normals[:, 0] > 0.3)
    distances = np.linalg.norm(centres - centres[is_lobe].mean(0), axis=1)
    chosen = np.where(is_lobe, distances, np.inf).argmin()
    return Lobe(sign, int(ids[chosen]), centres[chosen], unit(normals[chosen] * (1, 0, 1)))


def _lean_on_skin(head: RestHead, lobe: Lobe, lines: list[_Line]) -> list[_Line]:
    """The lines, shifted and swung about the lobe until they clear the skin."""
    points = np.concatenate([line.points for line in lines])
    radii = np.concatenate([line.radii for line in lines])
    is_skin = head.template.face_parts == "skin"
    (low_z, low_y), (high_z, high_y) = points[:, [2, 1]].min(0) - 1, points[:, [2, 1]].max(0) + 1
    skin = build_relief(
        head.vertices[:, [2, 1, 0]] * (1, 1, lobe.sign),
        head.template.faces[is_skin],
        low=(low_z, low_y),
        high=(high_z, high_y),
    ).widened(0.1)

    def room(points: np.ndarray) -> np.ndarray:
        return lobe.sign * points[:, 0] - radii - skin.over(points[:, [2, 1]])

    near = np.linalg.norm(points - lobe.point, axis=1) < 0.3
    shift = (lobe.sign * max(0.0, -float(room(points)[near].min())), 0, 0)
    for lean, turn in product(LEANS, TURNS):
        swing = _turned(2, lobe.sign * lean) @ _turned(1, -lobe.sign * turn)
        if (room((points - lobe.point) @ swing.T + lobe.point + shift) >= 0).all():
            break
    return [
        _Line(
            (line.points - lobe.point) @ swing.T + lobe.point + shift,
            swing @ line.across,
            line.radii,
            line.color,
            line.gloss,
        )
        for line in lines
    ]


def _turned(axis: int, angle: float) -> np.ndarray:
    """Rotation about a coordinate axis. [3, 3]"""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3)
    rotation[[first, second], [first, second]] = np.cos(angle)
    rotation[second, first], rotation[first, second] = np.sin(angle), -np.sin(angle)
    return rotation


def _stud(lobe: Lobe, earrings: Earrings) -> list[_Line]:
    radius = STUD_RADIUS * earrings.size
    centre = lobe.point + 0.6 * radius * lobe.outward
    return [_bead(centre, lobe.outward, radius, radius, earrings.stone)]


def _hoop(lobe: Lobe, earrings: Earrings) -> list[_Line]:
    radius, wire = HOOP_RADIUS * earrings.size, 0.06 + 0.03 * earrings.size
    turn = 2 * np.pi * np.arange(RING_STEPS + 3) / RING_STEPS
    along = np.array([lobe.sign * np.sin(HOOP_TURN), 0, np.cos(HOOP_TURN)])
    centre = lobe.point + 0.7 * wire * lobe.outward + radius * DOWN
    ring = radius * (np.sin(turn)[:, None] * along - np.cos(turn)[:, None] * DOWN)
    axis = np.cross(along, DOWN)
    return [_Line(centre + ring, axis, np.full(len(turn), wire), earrings.metal, METAL_GLOSS)]


def _drop(lobe: Lobe, earrings: Earrings) -> list[_Line]:
    length, radius = DROP_LENGTH * earrings.size, DROP_RADIUS * earrings.size
    top = lobe.point + 0.1 * lobe.outward
    wire = top + np.linspace(0, length, 6)[:, None] * DOWN
    return [
        _bead(top, lobe.outward, HOOK_RADIUS, HOOK_RADIUS, earrings.metal),
        _Line(wire, lobe.outward, np.full(6, DROP_WIRE), earrings.metal, METAL_GLOSS),
        _bead(top + length * DOWN, DOWN, 1.6 * radius, radius, earrings.stone),
    ]


def _bead(
    centre: np.ndarray,
    axis: np.ndarray,
    half_length: float,
    radius: float,
    color: tuple[float, float, float],
) -> _Line:
    """An ellipsoid around an axis."""
    along = -np.cos(np.linspace(0, np.pi, BEAD_STEPS))
    across = unit(np.cross(axis, [0.3, 0.2, 1.0]))
    radii = radius * np.sqrt(np.maximum(1 - along**2, 1e-4))
    return _Line(centre + half_length * along[:, None] * axis, across, radii, color, STONE_GLOSS)
