# SPDX-License-Identifier: Apache-2.0
"""Brows, lashes and beards. They stand on their root faces, so they follow every expression.

Unit centimetres, template frame: x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

import numpy as np

from ...rigs.procedural.fields import SIDES, on_side, smoothstep, vectors
from ...rigs.procedural.region_masks import beard_mask, brow_mask
from ...rigs.procedural.sculpt import EYE_CENTRE
from ...rigs.procedural.template import HeadTemplate
from .growth import GrowthRule, Roots, grow, sample_roots
from .strands import unit

NUM_BROW_STRANDS = 520
NUM_LASHES = {"upper": 46, "lower": 23}  # per eye
NUM_BEARD_STRANDS = 2600

BROW_WIDTH, LASH_WIDTH, BEARD_WIDTH = 0.046, 0.035, 0.095  # cm
MOUSTACHE_Y = -3.95  # cm, the line between the lips

BEARD_STYLES = ("full", "goatee", "moustache", "long")  # "stubble" is colour only


def grow_brows(
    template: HeadTemplate,
    rng: np.random.Generator,
    *,
    height: float = 0.0,
    thickness: float = 1.0,
    density: float = 1.0,
) -> tuple[np.ndarray, Roots]:
    """Short hairs that rise at the nose and lie down towards the temple, with their roots.

    Returns:
        Points in cm [n, 5, 3], roots.
    """

    def mask(points: np.ndarray) -> np.ndarray:
        # Hairs have a width of their own, so the roots keep inside the painted brow.
        return brow_mask(points, height, 0.92 * thickness)

    roots = sample_roots(template, mask, max(1, round(NUM_BROW_STRANDS * density)), rng)
    side = np.sign(roots.points[:, 0])
    outer = np.clip((np.abs(roots.points[:, 0]) - 1.05) / 3.7, 0, 1)  # 0 at the nose
    heading = vectors(
        side * (0.35 + 0.75 * outer),
        0.95 * (1 - outer) ** 1.5 - 0.25 * outer,
        0.15 - 0.35 * outer,
    )
    heading = unit(heading + rng.normal(0, 0.18, heading.shape))
    steps = (0.42 + 0.25 * rng.random(len(roots)))[:, None] / 4
    path = [roots.points + 0.01 * roots.normals]
    for i in range(4):
        path.append(path[-1] + steps * unit(heading + (0.35 - 0.22 * i) * roots.normals))
    return np.stack(path, axis=1), roots


def grow_lashes(
    template: HeadTemplate, rng: np.random.Generator, *, length: float = 1.0, density: float = 1.0
) -> tuple[np.ndarray, Roots]:
    """Curved hairs along the four lid edges, longest at the outer corner, with their roots.

    Returns:
        Points in cm [n, 5, 3], roots.
    """
    paths, edges = [], []
    for side, sign in SIDES.items():
        for lid, lid_length, bend in (("upper", 0.62, 0.75), ("lower", 0.26, -0.8)):
            edge = np.asarray(template.eye_edges[f"{side}_{lid}"])
            place = np.linspace(0.06, 0.98, max(2, round(NUM_LASHES[lid] * density)))
            segment = np.minimum((place * (len(edge) - 1)).astype(int), len(edge) - 2)
            share = place * (len(edge) - 1) - segment
            first, second = edge[segment], edge[segment + 1]
            points = (1 - share)[:, None] * template.vertices[first]
            points = points + share[:, None] * template.vertices[second]

            fan = vectors(sign * 0.9 * (place - 0.45), -0.25 * np.sign(bend))
            heading = unit(unit(points - on_side(EYE_CENTRE, sign)) + fan)
            spread = 1 + 0.1 * rng.normal(size=len(place))
            steps = (length * lid_length * (0.65 + 0.5 * place) * spread)[:, None] / 4
            path = [points]
            for _ in range(4):
                heading = unit(heading + vectors(y=0.3 * bend))
                path.append(path[-1] + steps * heading)
            paths.append(np.stack(path, axis=1))
            edges.append((first, second, share))
    paths = np.concatenate(paths)
    return paths, _roots_on_edges(
        template, paths[:, 0], *map(np.concatenate, zip(*edges, strict=True))
    )


def _roots_on_edges(
    template: HeadTemplate,
    points: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    share: np.ndarray,
) -> Roots:
    """Roots on mesh edges, bound to their skin faces; `share` runs from `first` to `second`."""
    skin = np.flatnonzero(template.face_parts == "skin")
    faces = template.faces[skin]
    has_edge = (faces == first[:, None, None]).any(-1) & (faces == second[:, None, None]).any(-1)
    bindings = skin[has_edge.argmax(1)]
    corners = template.faces[bindings]
    barycentric = (1 - share)[:, None] * (corners == first[:, None])
    barycentric = barycentric + share[:, None] * (corners == second[:, None])
    normals = unit(np.einsum("nc,ncx->nx", barycentric, template.normals[corners]))
    return Roots(points=points, normals=normals, bindings=bindings, barycentric=barycentric)


def _beard_area(points: np.ndarray, style: str) -> np.ndarray:
    """Probability of a root; lips stay free, the moustache is thin in the middle. [N, 3] -> [N]"""
    across, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    area = beard_mask(points)
    if style == "goatee":
        area = area * (1 - smoothstep(across, 1.5, 2.8)) * (z > 3.5)
    elif style == "moustache":
        area = area * ((across < 2.9) & (y > MOUSTACHE_Y) & (z > 5.0))
    is_below_upper_line = (across < 2.45) & (y < -3.28 - 0.10 * across)
    is_lip = is_below_upper_line & (y > -4.85 + 0.33 * across) & (z > 5.5)
    is_philtrum = (across < 0.35) & (y > -3.3)
    return area * ~is_lip * (1 - 0.8 * is_philtrum)


def grow_beard(
    template: HeadTemplate, rng: np.random.Generator, *, style: str, density: float = 1.0
) -> tuple[np.ndarray, Roots]:
    """Hairs that hang from jaw and chin, with their roots; above the mouth they part to the sides.

    Returns:
        Points in cm [n, 7, 3], roots.
    """

    def mask(points: np.ndarray) -> np.ndarray:
        return _beard_area(points, style)

    roots = sample_roots(template, mask, max(1, round(NUM_BEARD_STRANDS * density)), rng)
    num_strands, (x, y, z) = len(roots), roots.points.T
    chin = smoothstep(-y, 4.5, 7.0) * smoothstep(z, 2.0, 5.5)
    is_moustache = (y > MOUSTACHE_Y) & (z > 5)
    base, extra = {
        "full": (0.9, 1.1),
        "goatee": (0.8, 1.4),
        "moustache": (0.8, 0.0),
        "long": (1.3, 5.0),
    }[style]
    lengths = (base + extra * chin) * (0.8 + 0.4 * rng.random(num_strands))
    lengths = np.where(is_moustache, np.minimum(lengths, 1.0), lengths)
    hang = vectors(
        np.sign(x) * np.where(is_moustache, 0.9, 0.1),
        np.where(is_moustache, -0.7, -1.0),
        np.where(is_moustache, 0.0, 0.12),
    )

    def direction(_: np.ndarray, progress: float) -> np.ndarray:
        return unit(hang + 0.35 * (1 - progress) * roots.normals)

    points = grow(
        roots.points,
        roots.normals,
        direction,
        lengths=lengths,
        layers=0.06 + 0.45 * rng.random(num_strands) * (0.3 + chin),
        num_steps=6,
        rng=rng,
        rule=GrowthRule(lift=0.7, gravity=0.15, curl=0.25, curl_frequency=2.5),
    )
    return points, roots
