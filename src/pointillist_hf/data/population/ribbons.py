# SPDX-License-Identifier: Apache-2.0
"""Strands as meshes: narrow ribbons that turn their broad side to the camera. Centimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .strands import Strands, unit

# Along a strand from root (0) to tip (1), by kind: width, and brightness.
WIDTH_PROFILES = {
    "hair": ((0, 0.15, 0.75, 1), (0.8, 1, 0.9, 0.25)),
    "face": ((0, 0.3, 1), (0.9, 1, 0.15)),
}
BRIGHTNESS_PROFILES = {"hair": ((0, 0.35, 1), (0.62, 0.95, 1.08)), "face": ((0, 1), (0.8, 1.05))}
GLOSS = {"hair": 0.16, "face": 0.05}


@dataclass(frozen=True)
class Ribbons:
    """A triangle mesh with what shading needs at its vertices."""

    vertices: np.ndarray  # [R, 3] world space
    faces: np.ndarray  # [T, 3]
    columns: np.ndarray  # [R, 13] vertex, colour, normal, tangent, strength of the highlight


def build_ribbons(
    strands: Sequence[Strands], eye: np.ndarray, *, seed: int, thickening: float = 1.0
) -> Ribbons:
    """All strands of a posed subject as one mesh.

    Args:
        strands: In world space.
        eye: Centre of the camera, world space. [3].
        seed: Strands of a subject differ in width and colour, the same in every frame.
        thickening: Factor on the widths, to make up for strands left out.
    """
    rng = np.random.default_rng(seed)
    tables, faces, num_vertices = [], [], 0
    for bundle in strands:
        table = _ribbon_vertices(bundle, eye, thickening * bundle.width, rng)
        faces.append(_ribbon_faces(*bundle.points.shape[:2]) + num_vertices)
        tables.append(table)
        num_vertices += len(table)
    columns = np.concatenate(tables)
    return Ribbons(vertices=columns[:, :3], faces=np.concatenate(faces), columns=columns)


def strand_brightness(kind: str, num_points: int) -> np.ndarray:
    """Factor on the colour at the points of a strand, from dark root to bleached tip. [k]."""
    return np.interp(np.linspace(0, 1, num_points), *BRIGHTNESS_PROFILES[kind])


def _ribbon_vertices(
    bundle: Strands, eye: np.ndarray, width: float, rng: np.random.Generator
) -> np.ndarray:
    """The two edges of every ribbon, point by point. [2 n k, 13]."""
    num_strands, num_points = bundle.points.shape[:2]
    points = bundle.points.astype(np.float32)
    tangents = unit(np.gradient(points, axis=1))
    across = unit(np.cross(tangents, eye.astype(np.float32) - points))
    along = np.linspace(0, 1, num_points)
    profile = np.interp(along, *WIDTH_PROFILES[bundle.kind])
    half_width = 0.5 * width * profile * (0.75 + 0.5 * rng.random(num_strands))[:, None]
    tone = 1 + 0.22 * (rng.random(num_strands) - 0.5)[:, None]
    tone = tone * strand_brightness(bundle.kind, num_points)
    hue = 1 + 0.012 * rng.normal(size=(num_strands, 1, 3))
    offsets = across * half_width[..., None]
    shared = [
        np.clip(bundle.color * tone[..., None] * hue, 0, 1),
        bundle.normals,
        tangents,
        np.full((num_strands, num_points, 1), GLOSS[bundle.kind]),
    ]
    sides = [np.concatenate([points + s * offsets, *shared], axis=-1) for s in (-1, 1)]
    return np.stack(sides, axis=2).reshape(-1, 13).astype(np.float32)


def _ribbon_faces(num_strands: int, num_points: int) -> np.ndarray:
    """Two triangles for every segment. [2 n (k - 1), 3]."""
    first = 2 * (np.arange(num_strands)[:, None] * num_points + np.arange(num_points - 1)).ravel()
    corners = np.array([[0, 1, 3], [0, 3, 2]])
    return (first[:, None, None] + corners).reshape(-1, 3)
