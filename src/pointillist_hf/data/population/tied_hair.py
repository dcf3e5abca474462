# SPDX-License-Identifier: Apache-2.0
"""Tied hairstyles: combed to one or two places, then a tail, a bun or braids.

Unit centimetres, template frame: x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

import numpy as np

from ...rigs.procedural.fields import SIDES, on_side, smoothstep, vectors
from .growth import GrowthRule, Roots, Tress, grow
from .identity import Identity
from .strands import unit

PONYTAIL_TIE = np.array([0.0, 5.2, -10.6])  # cm
BUN_TIE = np.array([0.0, 9.6, -9.2])
BRAID_TIE = np.array([5.6, -5.6, -3.4])  # the left one

TAIL_SHARE = 0.17  # strands of the tail or bun for each root on the scalp
COMBED_WIDTH, TAIL_WIDTH = 0.17, 0.22  # cm

BRAID_LENGTH = 15.0  # cm
BRAID_PITCH = 3.2  # cm of braid in which a tress comes back to its side
BRAID_RADIUS = 0.62
TRESS_RADIUS = 0.42


def _comb_to(ties: np.ndarray, roots: Roots, rng: np.random.Generator) -> Tress:
    """Scalp hair pulled tight to its tie, one for all [3] or one for each root [n, 3]."""
    points = grow(
        roots.points,
        roots.normals,
        lambda points, progress: unit(ties - points),
        lengths=1.18 * np.linalg.norm(roots.points - ties, axis=-1) + 0.5,
        layers=0.10 + 0.35 * rng.random(len(roots)) ** 0.8,
        num_steps=12,
        rng=rng,
        rule=GrowthRule(stiffness=0.25, gravity=0, lift=0.25, adhesion=0.8, adhesion_floor=-9),
    )
    return Tress(points, width=COMBED_WIDTH)


def grow_ponytail(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Tied at the back of the head; the tail falls over the nape."""
    num_strands = max(1, round(TAIL_SHARE * len(roots)))
    spread = 0.10 * rng.normal(size=(num_strands, 3))

    def direction(points: np.ndarray, progress: float) -> np.ndarray:
        fall = -0.75 if progress < 0.15 else -1.0
        away = -0.9 if progress < 0.22 else -0.02
        return unit(vectors(spread[:, 0], fall, away + spread[:, 2]))

    tail = grow(
        PONYTAIL_TIE + rng.normal(0, 0.45, (num_strands, 3)),
        np.tile([0.0, 0.25, -1.0], (num_strands, 1)),
        direction,
        lengths=(15 + 4 * rng.random(num_strands)) * identity.length,
        layers=0.25 + 0.8 * rng.random(num_strands),
        num_steps=22,
        rng=rng,
        rule=GrowthRule(stiffness=0.6, gravity=0.35, curl=0.16, curl_frequency=0.55, lift=1.0),
    )
    return [_comb_to(PONYTAIL_TIE, roots, rng), Tress(tail, width=TAIL_WIDTH)]


def grow_bun(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Tied high at the back; the bun is a ball of arcs, wound mostly around its own axis."""
    num_strands = max(1, round(TAIL_SHARE * len(roots)))
    middle = unit(rng.normal(size=(num_strands, 3)))
    axis = np.array([0.0, 0.6, 0.8]) + 0.3 * rng.normal(size=(num_strands, 3))
    along = unit(np.cross(middle, axis))
    angles = np.linspace(-0.75, 0.75, 9)
    arcs = middle[:, None] * np.cos(angles)[:, None] + along[:, None] * np.sin(angles)[:, None]
    radii = 2.1 * (0.82 + 0.18 * rng.random(num_strands))
    bun = BUN_TIE + [0.0, 1.0, -0.9] + radii[:, None, None] * arcs
    return [_comb_to(BUN_TIE, roots, rng), Tress(bun, width=TAIL_WIDTH)]


def grow_braids(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Parted in the middle, tied behind the ears; two braids fall over the shoulders."""
    is_left = roots.points[:, 0] >= 0
    ties = np.where(is_left[:, None], BRAID_TIE, on_side(BRAID_TIE, -1.0))
    tresses = [_comb_to(ties, roots, rng)]
    num_strands = max(3, round(TAIL_SHARE * len(roots)))
    for sign in SIDES.values():
        line = _braid_line(sign, BRAID_LENGTH * identity.length, rng)
        tresses.append(Tress(_braid(line, num_strands, rng), width=COMBED_WIDTH))
    return tresses


def _braid_line(sign: float, length: float, rng: np.random.Generator) -> np.ndarray:
    """Middle line of a braid that rests on the shoulder and the chest. [k, 3]"""

    def direction(points: np.ndarray, progress: float) -> np.ndarray:
        forward = 0.9 * smoothstep(-points[:, 1], 6, 9) * (points[:, 2] < 4)
        return unit(vectors(0.05 * sign, -1.0, forward))

    line = grow(
        on_side(BRAID_TIE, sign)[None],
        np.array([[0.6 * sign, -0.5, 0.2]]),
        direction,
        lengths=np.array([length]),
        layers=np.array([BRAID_RADIUS + TRESS_RADIUS]),
        num_steps=40,
        rng=rng,
        rule=GrowthRule(stiffness=0.7, gravity=0.2),
    )
    return line[0]


def _braid(line: np.ndarray, num_strands: int, rng: np.random.Generator) -> np.ndarray:
    """Three tresses that take turns along a line, each a bundle of strands. [k, 3] -> [n, k, 3]"""
    ahead = unit(np.gradient(line, axis=0))
    across = unit(np.cross(ahead, [0.0, 0.0, 1.0]))
    outward = np.cross(across, ahead)
    arc = np.concatenate([[0.0], np.linalg.norm(np.diff(line, axis=0), axis=-1).cumsum()])

    tress = rng.integers(3, size=num_strands)
    angles = 2 * np.pi * (arc / BRAID_PITCH + tress[:, None] / 3)  # [n, k]
    radius, turn = np.sqrt(rng.random(num_strands)), rng.uniform(0, 2 * np.pi, num_strands)
    taper = 1 - 0.45 * smoothstep(arc / arc[-1], 0.5, 0.95)
    # A figure of eight per tress, seen along the braid, is what plaiting three of them makes.
    sideways = BRAID_RADIUS * np.cos(angles) + (TRESS_RADIUS * radius * np.cos(turn))[:, None]
    depth = 0.5 * BRAID_RADIUS * np.sin(2 * angles)
    depth = depth + (TRESS_RADIUS * radius * np.sin(turn))[:, None]
    return line + (taper * sideways)[..., None] * across + (taper * depth)[..., None] * outward
