# SPDX-License-Identifier: Apache-2.0
"""The places of the skin points of every cloud: evenly spread, denser where faces differ.

The places belong to the template, not to an identity: the skin of a person is a deformed copy of
one common skin, point by point. Centimetres; x to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...rigs.procedural.fields import smoothstep
from ...rigs.procedural.region_masks import scalp_mask
from ...rigs.procedural.sculpt import EYE_CENTRE
from ...rigs.procedural.template import HeadTemplate, Resolution, build_template
from .places import EYE_PARTS, TEETH_PARTS

NUM_CANDIDATES = 20_000
SEED = 0
ROWS_AT_ONCE = 512  # of the table of all distances, which may be large

# Relative density of the points, 1 on the cheeks.
FACE_BOOST, FEATURE_BOOST, EYE_BOOST = 1.5, 4.0, 6.0  # the first two are added to 1
SCALP_DENSITY, SHOULDER_DENSITY = 0.6, 0.5
MOUTH_DENSITY, TEETH_DENSITY = 0.6, 1.5
# A visible cap of the eyeball; the rest never leaves its socket.
EYE_CAP_Z = EYE_CENTRE[2] + 0.35


@dataclass(frozen=True, eq=False)
class SkinPlaces:
    """P places on the surface of the template."""

    bindings: np.ndarray  # [P] face
    barycentric: np.ndarray  # [P, 3]
    spacing: np.ndarray  # [P] centimetres to others of the same layer
    is_owner: np.ndarray  # [P] bool; the place that each face has whatever covers it


@lru_cache
def choose_skin_places(
    num_places: int, resolution: Resolution = "full", *, own_every_face: bool = False
) -> SkinPlaces:
    """Places in the order in which they were chosen, so any prefix covers the whole head.

    Args:
        num_places: At most that many.
        resolution: Of the template.
        own_every_face: Whether the first places are the middles of all faces, hidden ones too.
    """
    template = build_template(resolution)
    bindings, barycentric = _draw_candidates(template)
    num_owners = len(template.faces) if own_every_face else 0
    bindings = np.concatenate([np.arange(num_owners), bindings])
    barycentric = np.concatenate([np.full((num_owners, 3), 1 / 3), barycentric])
    points = np.einsum("nc,ncx->nx", barycentric, template.vertices[template.faces[bindings]])
    density = point_density(points, template.face_parts[bindings])
    layers = _layers(template.face_parts[bindings])
    chosen = farthest_points(
        points, num_places, density=density, layers=layers, num_given=num_owners
    )
    spacing = nearest_distances(points[chosen], layers[chosen])
    if own_every_face:
        # The middles of long thin faces lie close together on one side only.
        shares = _face_areas(template) / np.bincount(bindings[chosen], minlength=num_owners)
        spacing = np.maximum(spacing, np.sqrt(shares[bindings[chosen]]))
    return SkinPlaces(
        bindings=bindings[chosen],
        barycentric=barycentric[chosen],
        spacing=spacing,
        is_owner=chosen < num_owners,
    )


def point_density(points: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Wanted points per area at places on the template, relative. [n]."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    eyes = np.exp(-(((x - 3.1) / 2.0) ** 2) - ((y - 2.7) / 1.4) ** 2) * (z > 3)
    lips = np.exp(-((x / 3.0) ** 2) - ((y + 3.9) / 1.4) ** 2) * (z > 4)
    in_face = smoothstep(z, 2, 4) * smoothstep(y, -9, -7)
    density = 1 + FACE_BOOST * in_face + FEATURE_BOOST * (eyes + lips)
    density *= 1 - (1 - SCALP_DENSITY) * scalp_mask(points)
    density *= 1 - (1 - SHOULDER_DENSITY) * smoothstep(-y, 11, 14)
    density[np.isin(parts, ("mouth", "tongue"))] = MOUTH_DENSITY
    density[np.isin(parts, TEETH_PARTS)] = TEETH_DENSITY
    in_eye = np.isin(parts, EYE_PARTS)
    density[in_eye] = EYE_BOOST * (z[in_eye] > EYE_CAP_Z)
    return density


def farthest_points(
    points: np.ndarray,
    num_points: int,
    *,
    density: np.ndarray | None = None,
    layers: np.ndarray | None = None,
    num_given: int = 0,
) -> np.ndarray:
    """Indices of points as far from each other as possible, each next one from all before it.

    Args:
        points: [n, 3].
        num_points: At most n of them are chosen.
        density: Relative; the spacing goes with its inverse square root. Zero is never chosen.
        layers: Points keep apart from those of the same layer only. [n].
        num_given: So many of the first points are chosen before all others.
    """
    weights = np.ones(len(points)) if density is None else density
    num_points = min(num_points, num_given + int((weights[num_given:] > 0).sum()))
    chosen = np.empty(num_points, np.int64)
    squared = np.full(len(points), 1e6)
    for i in range(num_points):
        chosen[i] = i if i < num_given else np.argmax(squared * weights)
        offsets = points - points[chosen[i]]
        distances = np.einsum("nx,nx->n", offsets, offsets)
        if layers is not None:
            distances = np.where(layers == layers[chosen[i]], distances, np.inf)
        np.minimum(squared, distances, out=squared)
    return chosen


def nearest_distances(points: np.ndarray, layers: np.ndarray | None = None) -> np.ndarray:
    """Distance of every point to the next one of its layer, infinite if there is none. [n]."""
    nearest = np.empty(len(points))
    for start in range(0, len(points), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(points)))
        distances = np.linalg.norm(points[rows, None] - points, axis=-1)
        if layers is not None:
            distances[layers[rows, None] != layers] = np.inf
        distances[np.arange(len(rows)), rows] = np.inf
        nearest[rows] = distances.min(axis=1)
    return nearest


def _draw_candidates(template: HeadTemplate) -> tuple[np.ndarray, np.ndarray]:
    """Uniform random places on the template: faces [n], barycentric coordinates [n, 3]."""
    rng = np.random.default_rng(SEED)
    # Small features need candidates too, not only their share of the area.
    middles = template.vertices[template.faces].mean(axis=1)
    odds = _face_areas(template) * point_density(middles, template.face_parts)
    bindings = rng.choice(len(odds), size=NUM_CANDIDATES, p=odds / odds.sum())
    root, v = np.sqrt(rng.random(NUM_CANDIDATES)), rng.random(NUM_CANDIDATES)
    return bindings, np.stack([1 - root, root * (1 - v), root * v], axis=1)


def _face_areas(template: HeadTemplate) -> np.ndarray:
    """[F]"""
    first, second, third = template.vertices[template.faces].swapaxes(0, 1)
    return np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2


def _layers(parts: np.ndarray) -> np.ndarray:
    """Skin, eyeballs, and the inside of the mouth lie close together but are seen apart. [n]."""
    layers = np.zeros(len(parts), np.int64)
    layers[np.isin(parts, EYE_PARTS)] = 1
    layers[np.isin(parts, TEETH_PARTS)] = 2
    layers[np.isin(parts, ("mouth", "tongue"))] = 3
    return layers
