# SPDX-License-Identifier: Apache-2.0
"""Growth of strands: roots on the skin, and steps that follow a direction and slide over the head.

Unit centimetres, template frame: x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...rigs.procedural.fields import smoothstep
from ...rigs.procedural.template import HeadTemplate
from .distance_grid import build_distance_grid
from .strands import unit

SHOULDER_Y = -8.0  # cm; below it hair slips off to the front or the back instead of piling up
MAX_SAMPLING_ROUNDS = 60

Mask = Callable[[np.ndarray], np.ndarray]  # [N, 3] -> [N] probability
Direction = Callable[[np.ndarray, float], np.ndarray]  # points [n, 3], progress in [0, 1] -> [n, 3]


@dataclass(frozen=True)
class Roots:
    """n places on the skin."""

    points: np.ndarray  # [n, 3] cm
    normals: np.ndarray  # [n, 3] unit
    bindings: np.ndarray  # [n] int64 face index
    barycentric: np.ndarray  # [n, 3]

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Tress:
    """Strands of one width, not bound to the mesh yet."""

    points: np.ndarray  # [n, k, 3] cm
    width: float  # cm


@dataclass(frozen=True)
class GrowthRule:
    """How a strand turns while it grows, the same for all strands of a style."""

    stiffness: float = 0.55  # share of the last heading that survives a step
    gravity: float = 0.25  # downward turn at the tip; grows from nothing at the root
    curl: float = 0.0  # radius of the helix relative to the step
    curl_frequency: float = 1.6  # radians per cm
    lift: float = 0.5  # how much the first step follows the skin normal
    adhesion: float = 0.0  # share of the gap to its layer that one step closes
    adhesion_floor: float = -4.5  # cm; lower strands hang free
    has_collisions: bool = True


def sample_roots(
    template: HeadTemplate, mask: Mask, num_roots: int, rng: np.random.Generator
) -> Roots:
    """Random places on the skin, uniform by area, kept with the probability that `mask` gives."""
    skin = np.flatnonzero(template.face_parts == "skin")
    faces = template.faces[skin]
    corners = template.vertices[faces]  # [M, 3, 3]
    probes = np.concatenate([corners, corners.mean(1, keepdims=True)], axis=1)
    is_open = mask(probes.reshape(-1, 3)).reshape(len(faces), 4).max(1) > 0.01
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=-1) * is_open

    chosen, places, num_found = [], [], 0
    for _ in range(MAX_SAMPLING_ROUNDS):
        ids = rng.choice(len(faces), size=2 * num_roots, p=areas / areas.sum())
        root, v = np.sqrt(rng.random(2 * num_roots)), rng.random(2 * num_roots)
        barycentric = np.stack([1 - root, root * (1 - v), root * v], axis=-1)
        points = np.einsum("nc,ncx->nx", barycentric, corners[ids])
        is_kept = rng.random(2 * num_roots) < mask(points)
        chosen.append(ids[is_kept])
        places.append(barycentric[is_kept])
        num_found += is_kept.sum()
        if num_found >= num_roots:
            break
    ids = np.concatenate(chosen)[:num_roots]
    barycentric = np.concatenate(places)[:num_roots]
    return Roots(
        points=np.einsum("nc,ncx->nx", barycentric, corners[ids]),
        normals=unit(np.einsum("nc,ncx->nx", barycentric, template.normals[faces[ids]])),
        bindings=skin[ids],
        barycentric=barycentric,
    )


def parting_sides(points: np.ndarray, part: float) -> np.ndarray:
    """1 on the subject's left of the parting, -1 on its right. [n, 3] -> [n]"""
    return np.where(points[:, 0] >= part, 1.0, -1.0)


def draw_layers(num_strands: int, rng: np.random.Generator) -> np.ndarray:
    """Depth of each strand in the hair, 0 inside, 1 outside, where there are more. [n]"""
    return rng.random(num_strands) ** 0.8


def grow(
    points: np.ndarray,
    normals: np.ndarray,
    direction: Direction,
    *,
    lengths: np.ndarray,
    layers: np.ndarray,
    num_steps: int,
    rng: np.random.Generator,
    rule: GrowthRule = GrowthRule(),
    clumps: np.ndarray | None = None,
    shoulder_sides: np.ndarray | None = None,
) -> np.ndarray:
    """Polylines that start at the roots and bend towards a direction field.

    Args:
        points: Roots, cm. [n, 3]
        normals: Unit. [n, 3]
        direction: Where a strand wants to go.
        lengths: cm. [n]
        layers: Least distance from the skin, cm; different values give the hair its thickness. [n]
        num_steps: k - 1.
        rng: Draws the phase of each curl.
        rule: How the strands turn.
        clumps: Strands with the same number curl together; without it each curls alone. [n] int64
        shoulder_sides: Where a strand slips off the shoulders: 1 to the front, -1 to the back. [n]

    Returns:
        [n, k, 3] cm, the root first.
    """
    steps = (lengths / num_steps)[:, None]
    clumps = np.arange(len(points)) if clumps is None else clumps
    phases = rng.uniform(0, 2 * np.pi, (2, clumps.max() + 1, 1))[:, clumps]
    heading = unit(rule.lift * normals + direction(points, 0.0))
    path = [points]
    for i in range(num_steps):
        progress = (i + 1) / num_steps
        heading = rule.stiffness * heading + (1 - rule.stiffness) * direction(points, progress)
        heading = unit(heading - [0.0, rule.gravity * progress, 0.0])
        points = points + steps * (heading + _curl(heading, i * steps, phases, rule))
        if rule.has_collisions:
            # The layer builds up over the first steps, because every root lies on the skin.
            clearance = layers * min(1.0, (i + 1) / 2.5)
            points, heading = _slide(points, heading, clearance, rule, shoulder_sides)
        path.append(points)
    return np.stack(path, axis=1)


def _curl(heading: np.ndarray, arc: np.ndarray, phases: np.ndarray, rule: GrowthRule) -> np.ndarray:
    """A helix around the heading; two phases per strand make each one an ellipse of its own."""
    if rule.curl == 0:
        return np.zeros_like(heading)
    across = unit(np.cross(heading, [0.3, 0.2, 1.0]))
    other = np.cross(heading, across)
    angles = phases + rule.curl_frequency * arc
    return rule.curl * (across * np.cos(angles[0]) + other * np.sin(angles[1]))


def _slide(
    points: np.ndarray,
    heading: np.ndarray,
    clearance: np.ndarray,
    rule: GrowthRule,
    shoulder_sides: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Points pushed out or drawn back to their layer, and headings that no longer cross it."""
    distances, outward = build_distance_grid().sample(points)
    gap = clearance - distances
    is_inside = gap > 0
    pull = rule.adhesion * smoothstep(points[:, 1], rule.adhesion_floor, rule.adhesion_floor + 4)
    moves = np.where(is_inside, gap, pull * gap)[:, None] * outward
    if shoulder_sides is not None:
        slips = (is_inside & (points[:, 1] < SHOULDER_Y))[:, None]
        sideways = shoulder_sides[:, None] * np.array([0.0, 0.0, 1.0])
        # A shoulder slopes, so leaving it sideways takes longer than its depth.
        moves = np.where(slips, 1.25 * gap[:, None] * sideways, moves)
        outward = np.where(slips, sideways, outward)
    crossing = (heading * outward).sum(-1)
    removed = np.where(is_inside, np.minimum(crossing, 0), pull * crossing)
    return points + moves, unit(heading - removed[:, None] * outward)
