# SPDX-License-Identifier: Apache-2.0
"""Strands outside the mesh that ride on its faces: hair, brows, lashes, beards.

A strand is grown once on the template. Every point keeps a face and barycentric coordinates, so
that it follows the shape, the expression and the pose of the head like a bound gaussian
(paper Eq. 5).

Unit centimetres, template frame: x to the subject's left, y up, the face looks along +z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

CELL_SIZE = 2.5  # cm, edge of the buckets of the nearest-face search
NUM_SMOOTHING_PASSES = 4
HULL_CENTRES = {"hair": (0.0, 3.0, -2.5), "face": (0.0, 0.0, -1.5)}  # cm


@dataclass(frozen=True)
class Strands:
    """n polylines of k points that share a width and a colour."""

    points: np.ndarray  # [n, k, 3] template space, cm; the root comes first
    width: float  # cm
    color: np.ndarray  # [3] sRGB in [0, 1]
    # Hair drapes over the head, face hair stands on its root face, worn things are rigid.
    kind: Literal["hair", "face", "worn"]
    bindings: np.ndarray  # [n, k] int64 face index
    barycentric: np.ndarray  # [n, k, 3]
    normals: np.ndarray  # [n, k, 3] outward from the middle of the head, for soft shading

    def __len__(self) -> int:
        """Number of strands n."""
        return len(self.points)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one; a zero vector stays zero. [..., 3] -> [..., 3]"""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def hull_normals(points: np.ndarray, kind: Literal["hair", "face"]) -> np.ndarray:
    """Unit directions from the middle of the hair or of the face. [..., 3] -> [..., 3]"""
    return unit(points - np.asarray(HULL_CENTRES[kind]))


def nearest_points(queries: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Index of the nearest target of each query, exactly. [N, 3], [M, 3] -> [N] int64

    Queries are searched bucket by bucket. Within a bucket only targets that can win are compared:
    those that are farther from its centre than the nearest one by at most its diagonal.
    """
    cells = np.floor(queries / CELL_SIZE).astype(np.int64)
    shape = np.ptp(cells, axis=0) + 1
    keys = np.ravel_multi_index((cells - cells.min(0)).T, shape)
    _, first, bucket = np.unique(keys, return_index=True, return_inverse=True)
    centres = (cells[first] + 0.5) * CELL_SIZE
    squared = (targets**2).sum(-1)
    to_targets = (centres**2).sum(-1, keepdims=True) - 2 * centres @ targets.T + squared
    distances = np.sqrt(np.maximum(to_targets, 0))  # [buckets, M]
    reach = distances.min(1) + np.sqrt(3) * CELL_SIZE + 1e-6

    order = np.argsort(bucket, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(bucket))[:-1])
    nearest = np.empty(len(queries), dtype=np.int64)
    for ids, row, limit in zip(members, distances, reach, strict=True):
        candidates = np.flatnonzero(row <= limit)
        scores = squared[candidates] - 2 * queries[ids] @ targets[candidates].T
        nearest[ids] = candidates[scores.argmin(1)]
    return nearest


def barycentric_coordinates(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The points' projections, clamped into their triangles. [N, 3], [N, 3, 3] -> [N, 3]"""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    offset = points - corners[:, 0]
    d00, d01, d11 = (first * first).sum(-1), (first * second).sum(-1), (second * second).sum(-1)
    d20, d21 = (offset * first).sum(-1), (offset * second).sum(-1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-12)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    weights = np.maximum(np.stack([1 - v - w, v, w], axis=-1), 0)
    return weights / weights.sum(-1, keepdims=True)


def bind_to_faces(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, face_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of some faces, by centroid, and the place on it.

    Args:
        points: cm. [n, k, 3]
        vertices: cm. [V, 3]
        faces: Vertex indices. [F, 3]
        face_ids: The faces that may be chosen. [M]

    Returns:
        Bindings [n, k] int64, barycentric coordinates [n, k, 3].
    """
    flat = points.reshape(-1, 3)
    corners = vertices[faces[face_ids]]
    chosen = nearest_points(flat, corners.mean(1))
    barycentric = barycentric_coordinates(flat, corners[chosen])
    return face_ids[chosen].reshape(points.shape[:2]), barycentric.reshape(points.shape)


def bind_to_roots(
    num_points: int, bindings: np.ndarray, barycentric: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every point of a strand on its root face. [n], [n, 3] -> [n, k] int64, [n, k, 3]"""
    return (
        np.repeat(bindings[:, None], num_points, axis=1),
        np.repeat(barycentric[:, None], num_points, axis=1),
    )


def smooth_along(values: np.ndarray) -> np.ndarray:
    """Values averaged along each strand, so that face borders leave no kink. [n, k, ...]"""
    for _ in range(NUM_SMOOTHING_PASSES):
        middle = 0.5 * values[:, 1:-1] + 0.25 * (values[:, :-2] + values[:, 2:])
        values = np.concatenate([values[:, :1], middle, values[:, -1:]], axis=1)
    return values


def deform_strands(
    strands: Strands, faces: np.ndarray, vertex_offsets: np.ndarray, vertex_transforms: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Strands carried along by the mesh: displaced with it, then posed with it.

    Args:
        strands: On the template.
        faces: Vertex indices. [F, 3]
        vertex_offsets: Shape and expression, cm. [V, 3]
        vertex_transforms: Blended joint transforms, cm. [V, 3, 4]

    Returns:
        Points in cm [n, k, 3], unit normals [n, k, 3].
    """
    corners = faces[strands.bindings]  # [n, k, 3]
    offsets = np.einsum("nkc,nkcx->nkx", strands.barycentric, vertex_offsets[corners])
    transforms = np.einsum("nkc,nkcxy->nkxy", strands.barycentric, vertex_transforms[corners])
    if strands.kind == "hair":
        offsets, transforms = smooth_along(offsets), smooth_along(transforms)
    rotations = transforms[..., :3]
    points = np.einsum("nkxy,nky->nkx", rotations, strands.points + offsets) + transforms[..., 3]
    return points, unit(np.einsum("nkxy,nky->nkx", rotations, strands.normals))
