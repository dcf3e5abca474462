# SPDX-License-Identifier: Apache-2.0
"""Teeth for FLAME: 120 vertices and 168 faces behind the lips.

VHAP and GaussianAvatars add them, which makes the 10,144 faces of the paper's binding vocabulary.
Vertices, faces and their order follow those two, so that bindings mean the same. Two rows of
plates, each with a front, an edge and a back; the upper one hangs on the head, the lower one on the
jaw.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .model_file import NUM_VERTICES, FlameArrays

# Rings of lip vertices, from the subject's left to right.
UPPER_LIP = (
    1713, 1715, 1716, 1735, 1696, 1694, 1657, 3543, 2774, 2811, 2813, 2850, 2833, 2832, 2830,
)  # fmt: skip
LOWER_LIP = (
    1576, 1577, 1773, 1774, 1795, 1802, 1865, 3503, 2948, 2905, 2898, 2881, 2880, 2713, 2712,
)  # fmt: skip
COLUMNS = len(UPPER_LIP)
# Rows of new vertices in their order; each has a twin further back.
ROWS = (
    "upper_root", "lower_root", "upper_edge", "lower_edge",
    "upper_root_back", "upper_edge_back", "lower_root_back", "lower_edge_back",
)  # fmt: skip

# Lengths in units of the mean gap between the lips.
DEPTH, EDGE, LOWER_RECESS, HEIGHT, THICKNESS = 1.5, 0.1, 0.4, 2.0, 1.0

# Strips of quads between two rows: the two triangles of quad i as (row, column offset) corners,
# first in the left half of the face, then in the right one. a, b are the rows.
_A0, _A1, _B0, _B1 = ("a", 0), ("a", 1), ("b", 0), ("b", 1)
STRIPS = (
    ("upper_root", "upper_edge",
     ((_A0, _B1, _B0), (_A0, _A1, _B1)), ((_A0, _A1, _B0), (_A1, _B1, _B0))),
    ("upper_root_back", "upper_edge_back",
     ((_A0, _B0, _B1), (_A0, _B1, _A1)), ((_A0, _B0, _A1), (_A1, _B0, _B1))),
    ("upper_edge_back", "upper_edge",
     ((_A0, _B0, _A1), (_A1, _B0, _B1)), ((_A0, _B0, _B1), (_A0, _B1, _A1))),
    ("lower_edge", "lower_root",
     ((_A0, _A1, _B0), (_A1, _B1, _B0)), ((_A0, _B1, _B0), (_A0, _A1, _B1))),
    ("lower_root_back", "lower_edge_back",
     ((_A0, _B1, _B0), (_A0, _A1, _B1)), ((_A0, _A1, _B0), (_A1, _B1, _B0))),
    ("lower_edge_back", "lower_edge",
     ((_A0, _A1, _B0), (_A1, _B1, _B0)), ((_A0, _B1, _B0), (_A0, _A1, _B1))),
)  # fmt: skip


def add_teeth(flame: FlameArrays) -> FlameArrays:
    """The model with teeth: 5,143 vertices, 10,144 faces.

    They follow the lips between identities, and neither expressions nor pose correctives. The
    upper row moves with joint 1 (neck), the lower row with joint 2 (jaw).
    """
    vertices = tooth_vertices(flame.v_template)
    count = len(vertices)
    lips = [flame.shapedirs[list(ring)] for ring in (UPPER_LIP, LOWER_LIP)]
    identity = np.tile(np.mean(lips, axis=0), (len(ROWS), 1, 1))
    weights = np.zeros((count, flame.lbs_weights.shape[1]), np.float32)
    is_upper = np.repeat([row.startswith("upper") for row in ROWS], COLUMNS)
    weights[is_upper, 1], weights[~is_upper, 2] = 1, 1

    def extend(array: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        rows = np.zeros((count, *array.shape[1:])) if rows is None else rows
        return np.concatenate([array, rows.astype(array.dtype)])

    return replace(
        flame,
        v_template=extend(flame.v_template, vertices),
        faces=extend(flame.faces, tooth_faces()),
        shapedirs=extend(flame.shapedirs, identity),
        exprdirs=extend(flame.exprdirs),
        posedirs=extend(flame.posedirs),
        J_regressor=extend(flame.J_regressor.T).T,
        lbs_weights=extend(flame.lbs_weights, weights),
    )


def tooth_vertices(v_template: np.ndarray) -> np.ndarray:
    """Places of the new vertices on the mean head, row by row, metres. [120, 3]"""
    upper, lower = v_template[list(UPPER_LIP)], v_template[list(LOWER_LIP)]
    gap = np.linalg.norm(upper - lower, axis=-1).mean()
    middle = (upper + lower) / 2
    middle[:, 1] = middle[:, 1].mean()
    middle[:, 2] -= DEPTH * gap
    up, back = np.array([0, gap, 0]), np.array([0, 0, -gap])
    upper_edge, lower_edge = middle + EDGE * up, middle - EDGE * up + LOWER_RECESS * back
    front = {
        "upper_root": upper_edge + HEIGHT * up,
        "lower_root": lower_edge - HEIGHT * up,
        "upper_edge": upper_edge,
        "lower_edge": lower_edge,
    }
    rows = [
        front[row.removesuffix("_back")] + THICKNESS * back * row.endswith("_back") for row in ROWS
    ]
    return np.concatenate(rows).astype(np.float32)


def tooth_faces() -> np.ndarray:
    """The new faces, upper before lower. [168, 3]"""
    starts = {row: NUM_VERTICES + COLUMNS * i for i, row in enumerate(ROWS)}
    faces = []
    for first, second, left, right in STRIPS:
        rows = {"a": starts[first], "b": starts[second]}
        for i in range(COLUMNS - 1):
            triangles = left if i < (COLUMNS - 1) // 2 else right
            faces += [[rows[row] + i + step for row, step in corners] for corners in triangles]
    return np.array(faces, np.int64)
