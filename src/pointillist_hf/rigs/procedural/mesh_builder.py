# SPDX-License-Identifier: Apache-2.0
"""A mesh under construction: vertices and labelled faces, added piece by piece."""

from __future__ import annotations

import numpy as np


class MeshBuilder:
    """Collects vertices (centimetres) and faces; every face carries the name of its part."""

    def __init__(self) -> None:
        self._vertices: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._parts: list[np.ndarray] = []
        self._num_vertices = 0

    @property
    def vertices(self) -> np.ndarray:
        """All vertices so far. [V, 3]."""
        return np.concatenate(self._vertices)

    @property
    def faces(self) -> np.ndarray:
        """All faces so far, counter-clockwise seen from outside. [F, 3]."""
        return np.concatenate(self._faces)

    @property
    def face_parts(self) -> np.ndarray:
        """The part of each face so far. [F]."""
        return np.concatenate(self._parts)

    def add_vertices(self, points: np.ndarray) -> np.ndarray:
        """Ids of the added points, in their shape. [...] from [..., 3]."""
        points = np.asarray(points, float)
        num_points = points.size // 3
        self._vertices.append(points.reshape(-1, 3))
        self._num_vertices += num_points
        start = self._num_vertices - num_points
        return np.arange(start, self._num_vertices).reshape(points.shape[:-1])

    def add_faces(self, faces: np.ndarray, part: str) -> None:
        """Add triangles given by their vertex ids. [F, 3]."""
        faces = np.asarray(faces, np.int64).reshape(-1, 3)
        self._faces.append(faces)
        self._parts.append(np.full(len(faces), part))

    def add_strip(
        self,
        first: np.ndarray,
        second: np.ndarray,
        part: str,
        *,
        flip: bool = False,
        mirrored: slice | None = None,
    ) -> None:
        """Add the quads between two rows of ids, each split along first[i] - second[i + 1].

        They face the viewer who sees `first` above `second` and both running to the right,
        unless flipped.

        Args:
            first: Ids of the upper row.
            second: Ids of the lower row, as many.
            part: Their name.
            flip: Whether they face away.
            mirrored: Quads split along the other diagonal, for strips across the midline.
        """
        corners = np.stack([first[:-1], second[:-1], second[1:], first[1:]], axis=-1)
        if mirrored is not None:
            corners[mirrored] = np.roll(corners[mirrored], -1, axis=1)
        if flip:
            corners = corners[:, [0, 3, 2, 1]]
        self.add_faces(corners[:, [0, 1, 2, 0, 2, 3]], part)

    def add_fan(self, tip: int, ring: np.ndarray, part: str, *, flip: bool = False) -> None:
        """Add the triangles between a vertex and a closed ring around it."""
        after = np.roll(ring, -1)
        ends = (after, ring) if flip else (ring, after)
        self.add_faces(np.stack([np.full_like(ring, tip), *ends], axis=-1), part)


def close_ring(ring: np.ndarray) -> np.ndarray:
    """A ring of ids with its first repeated at the end, as a row for `add_strip`."""
    return np.append(ring, ring[0])
