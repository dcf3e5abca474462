# SPDX-License-Identifier: Apache-2.0
"""Hair that keeps to the head or stands up from it: buzz, short, crop, side part, afro.

Unit centimetres, template frame: x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

import numpy as np

from ...rigs.procedural.fields import smoothstep, vectors
from .growth import GrowthRule, Roots, Tress, draw_layers, grow, parting_sides
from .identity import Identity
from .strands import unit


def grow_buzz(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Half a centimetre, straight out, slightly combed down and back."""
    comb = roots.normals - np.array([0.0, 0.3, 0.2])
    points = grow(
        roots.points,
        roots.normals,
        lambda points, progress: comb,
        lengths=np.full(len(roots), 0.55),
        layers=np.full(len(roots), 0.02),
        num_steps=3,
        rng=rng,
        rule=GrowthRule(has_collisions=False),
    )
    return [Tress(points, width=0.10)]


def grow_short(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Combed back with some height on top, close at the sides."""
    crown = smoothstep(roots.points[:, 1], 5.5, 10)
    side = parting_sides(roots.points, identity.part)
    comb = unit(
        vectors(
            side * (0.20 + 0.25 * crown),
            0.70 * crown - 0.55,
            0.25 * crown * roots.normals[:, 2] - 0.85,
        )
        + 0.18 * crown[:, None] * roots.normals
    )
    points = grow(
        roots.points,
        roots.normals,
        lambda points, progress: comb,
        lengths=(1.4 + 2.2 * crown + 0.7 * rng.random(len(roots))) * identity.length,
        layers=0.08 + (0.18 + 0.62 * crown) * draw_layers(len(roots), rng) * identity.volume,
        num_steps=8,
        rng=rng,
        rule=GrowthRule(lift=0.8, gravity=0.2, curl=0.14, curl_frequency=1.2, adhesion=0.35),
    )
    return [Tress(points, width=0.14)]


def grow_crop(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """A textured fringe, brushed forward."""
    crown = smoothstep(roots.points[:, 1], 5.5, 10)
    side = parting_sides(roots.points, identity.part)
    comb = vectors(0.25 * side, 0.2 * roots.normals[:, 1] - 0.45, 0.2 + 0.85 * crown)
    comb = unit(unit(comb) + 0.10 * roots.normals)
    points = grow(
        roots.points,
        roots.normals,
        lambda points, progress: comb,
        lengths=(1.2 + 2.7 * crown + 0.6 * rng.random(len(roots))) * identity.length,
        layers=0.08 + (0.15 + 0.60 * crown) * draw_layers(len(roots), rng) * identity.volume,
        num_steps=8,
        rng=rng,
        rule=GrowthRule(lift=0.8, gravity=0.3, curl=0.22, curl_frequency=1.4, adhesion=0.35),
    )
    return [Tress(points, width=0.14)]


def grow_sidepart(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Long on top, combed from the parting to both sides and back."""
    crown = smoothstep(roots.points[:, 1], 4, 9)
    side = parting_sides(roots.points, identity.part)

    def comb(points: np.ndarray, progress: float) -> np.ndarray:
        top = smoothstep(points[:, 1], 4, 8)
        return unit(vectors(side * (0.15 + 0.9 * top), 0.9 * top - 1.1, -0.45))

    points = grow(
        roots.points,
        roots.normals,
        comb,
        lengths=(2.0 + 4.4 * crown + 1.2 * rng.random(len(roots))) * identity.length,
        layers=0.10 + (0.2 + 0.7 * crown) * draw_layers(len(roots), rng) * identity.volume,
        num_steps=12,
        rng=rng,
        rule=GrowthRule(lift=0.8, gravity=0.30, curl=0.08, adhesion=0.5),
    )
    return [Tress(points, width=0.15)]


def grow_afro(roots: Roots, identity: Identity, rng: np.random.Generator) -> list[Tress]:
    """Tight coils that stand away from the head all around."""

    def outward(points: np.ndarray, progress: float) -> np.ndarray:
        return unit(roots.normals + 0.25 * unit(points - [0.0, 4.5, -2.0]))

    points = grow(
        roots.points,
        roots.normals,
        outward,
        lengths=(4.2 + 2.0 * rng.random(len(roots))) * identity.length,
        layers=0.15 + 1.2 * draw_layers(len(roots), rng),
        num_steps=14,
        rng=rng,
        rule=GrowthRule(stiffness=0.7, gravity=0.05, curl=0.95, curl_frequency=4.2, lift=1.0),
    )
    return [Tress(points, width=0.15)]
