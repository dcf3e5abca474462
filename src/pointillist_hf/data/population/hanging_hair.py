# SPDX-License-Identifier: Apache-2.0
"""Hair that hangs down loose: curly, bob, long.

Unit centimetres, template frame: x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

import numpy as np

from ...rigs.procedural.fields import smoothstep, vectors
from .growth import Direction, GrowthRule, Roots, Tress, draw_layers, grow, parting_sides
from .identity import Identity
from .strands import nearest_points, unit

NUM_CURL_CLUMPS = 150


def grow_curly(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Ringlets down to the jaw."""
    lengths = 0.55 * (roots.points[:, 1] + 6.0) + 5.0 + 1.2 * rng.random(len(roots))
    points = grow(
        roots.points,
        roots.normals,
        _hanging(roots, identity.part),
        lengths=lengths * identity.length,
        layers=0.2 + 1.5 * draw_layers(len(roots), rng) * identity.volume,
        num_steps=26,
        rng=rng,
        rule=GrowthRule(
            stiffness=0.45,
            gravity=0.3,
            curl=1.1,
            curl_frequency=2.0,
            lift=0.8,
            adhesion=0.25,
            adhesion_floor=-3.0,
        ),
        clumps=nearest_points(roots.points, roots.points[:NUM_CURL_CLUMPS]),
        shoulder_sides=_shoulder_sides(roots, rng),
    )
    return [Tress(points, width=0.16)]


def grow_bob(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Straight hair, cut at the jaw."""
    factor = 1 + 0.35 * (identity.length - 1)  # the cut stays near the jaw
    rule = GrowthRule(
        stiffness=0.45,
        gravity=0.3,
        curl=0.05,
        curl_frequency=0.7,
        lift=0.35,
        adhesion=0.55,
        adhesion_floor=-2.5,
    )
    return _hang_down(roots, identity, rng, end=-5.5, factor=factor, num_steps=20, rule=rule)


def grow_long(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Straight hair over chest and back."""
    rule = GrowthRule(
        stiffness=0.45,
        gravity=0.3,
        curl=0.10,
        curl_frequency=0.7,
        lift=0.35,
        adhesion=0.55,
        adhesion_floor=-3.5,
    )
    factor = identity.length
    return _hang_down(roots, identity, rng, end=-17.5, factor=factor, num_steps=26, rule=rule)


def _hang_down(
    roots: Roots,
    identity: Identity,
    rng: np.random.Generator,
    *,
    end: float,
    factor: float,
    num_steps: int,
    rule: GrowthRule,
) -> list[Tress]:
    """Hair that ends near one height, as if cut along a line; `end` is in cm."""
    front = smoothstep(roots.points[:, 2], 2, 6)
    # The way over the head is longer than the fall.
    lengths = 1.08 * (roots.points[:, 1] - end) + 2.6 + 1.6 * front
    lengths = lengths + rng.normal(0, 0.55, len(roots))
    thickness = (0.95 + 0.25 * front) * identity.volume
    points = grow(
        roots.points,
        roots.normals,
        _hanging(roots, identity.part),
        lengths=np.maximum(lengths, 3.5) * factor,
        layers=0.14 + thickness * draw_layers(len(roots), rng),
        num_steps=num_steps,
        rng=rng,
        rule=rule,
        shoulder_sides=_shoulder_sides(roots, rng),
    )
    return [Tress(points, width=0.19)]


def _hanging(roots: Roots, part: float) -> Direction:
    """Parted on top, swept off the face, then straight down; below the shoulders it fans out."""
    side = parting_sides(roots.points, part)
    front = smoothstep(roots.points[:, 2], 2, 6)
    back = smoothstep(-roots.points[:, 2], 4, 8)
    # What grows at the temples ends on the chest, what grows by the ears on the arms.
    fan = np.interp(roots.points[:, 2], [-9, -2, 0, 6], [-0.12, -0.12, 0.12, -0.42])

    def direction(points: np.ndarray, progress: float) -> np.ndarray:
        x, y, z = points.T
        top = smoothstep(y, 4.5, 9.5)
        beside_face = smoothstep(z, 0, 3.5) * (1 - top) * (1 - smoothstep(-y, 3.5, 8))
        # Near the midline the sign of x would flicker, so the parting decides there.
        outward = np.where((top > 0.02) | (np.abs(x) < 0.8), side, np.sign(x))
        return unit(
            vectors(
                outward * (0.95 * top * (1 - 0.75 * back) + 0.03 + fan * smoothstep(-y, 9, 13)),
                0.65 * top - 1,
                -(0.60 * front + 0.15 + 0.3 * back) * top - 0.30 * beside_face,
            )
        )

    return direction


def _shoulder_sides(roots: Roots, rng: np.random.Generator) -> np.ndarray:
    """Hair from the front half falls before the shoulders, the rest behind them. [n]"""
    return np.where(roots.points[:, 2] + 0.6 * rng.normal(size=len(roots)) > -2.0, 1.0, -1.0)
