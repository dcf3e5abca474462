# SPDX-License-Identifier: Apache-2.0
"""The rig's neutral head: one mesh of skin, lids, mouth, teeth, tongue, ears and eyeballs.

Centimetres and degrees; x points to the subject's left, y up, z out of the face. "left" and
"right" are the subject's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .ears import add_ear
from .eyes import add_eyeball, add_lid_rim
from .fields import SIDES
from .grid import (
    EYE_LINE,
    INNER_CANTHUS,
    MOUTH_CORNER,
    MOUTH_LINE,
    OUTER_CANTHUS,
    Grid,
    Resolution,
    cast_grid,
)
from .mesh_builder import MeshBuilder, close_ring
from .mouth import TEETH, add_mouth_bag, add_teeth, add_tongue

LIDS = ("upper", "lower")
NUM_EAR_SPOKES = {"full": 22, "low": 16}
NUM_TONGUE_SEGMENTS = {"full": 12, "low": 8}


@dataclass(frozen=True)
class HeadTemplate:
    """The neutral head and the coordinates of the grid it was cast on.

    The first R * C vertices are the grid, row by row from the crown down; the next is the pole on
    the crown. Behind the head azimuths jump from 180 to -169, so interpolate their absolute value.
    """

    vertices: np.ndarray  # [V, 3]
    faces: np.ndarray  # [F, 3], counter-clockwise seen from outside
    # skin, lid, mouth, teeth_{upper,lower}, {ear,eye}_{left,right}, tongue
    face_parts: np.ndarray  # [F]
    vertex_parts: np.ndarray  # [V]; vertices on a seam belong to the skin
    normals: np.ndarray  # [V, 3]; skin vertices take theirs from skin faces only
    row_y: np.ndarray  # [V], height of the unbent grid row; -50 off the grid, 50 on the pole
    azimuth: np.ndarray  # [V], signed column angle, positive on the left; 180 off the grid
    below_mouth: np.ndarray  # [V], bool: skin below the slit, its lower edge, the lower mouth bag
    below_eye: np.ndarray  # [V], bool: skin below the eye row, its lower edge, the lower rims
    eye_edges: dict[str, np.ndarray]  # "left_upper", ...: ids from inner to outer canthus
    lid_rims: dict[str, np.ndarray]  # same keys: inner edges of the lids, ordered alike
    mouth_edges: dict[str, np.ndarray]  # "upper", "lower": ids from the right to the left corner
    mouth_bag: dict[str, list[np.ndarray]]  # same keys: rows of ids behind the lips, inwards
    tongue: np.ndarray  # ids: its tip, then its rings towards the root
    grid_shape: tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class _Slits:
    """The skin's ids once eyes and mouth are open: a row's lower copy starts the quads below."""

    upper_ids: np.ndarray  # [R, C]
    lower_ids: np.ndarray  # [R, C]; differs from the upper ids inside the slits
    eye_edges: dict[str, np.ndarray]
    mouth_edges: dict[str, np.ndarray]


@lru_cache
def build_template(resolution: Resolution = "full") -> HeadTemplate:
    """The neutral head at the chosen resolution; always the same, and shared: do not write to it.

    Example:
        >>> build_template("low").faces.shape
        (3682, 3)
    """
    grid, mesh = cast_grid(resolution), MeshBuilder()
    slits = _add_skin(mesh, grid)
    lid_rims = {
        key: add_lid_rim(mesh, edge, *key.split("_")) for key, edge in slits.eye_edges.items()
    }
    mouth_bag = add_mouth_bag(mesh, slits.mouth_edges)
    for part in TEETH:
        add_teeth(mesh, part)
    for side in SIDES:
        add_ear(mesh, side, NUM_EAR_SPOKES[resolution])
    for side in SIDES:
        add_eyeball(mesh, side)
    tongue = add_tongue(mesh, NUM_TONGUE_SEGMENTS[resolution])
    vertices, faces, face_parts = mesh.vertices, mesh.faces, mesh.face_parts
    row_y, azimuth = _grid_coordinates(grid, slits, len(vertices))
    lower_rims = [rim for key, rim in lid_rims.items() if key.endswith("lower")]
    below_eye = _below(grid.eye_row, slits, _lower_edges(slits.eye_edges) + lower_rims, row_y)
    lower_bag = [*_lower_edges(slits.mouth_edges), *mouth_bag["lower"]]
    return HeadTemplate(
        vertices=vertices,
        faces=faces,
        face_parts=face_parts,
        vertex_parts=_parts_of_vertices(faces, face_parts, len(vertices)),
        normals=_seam_normals(vertices, faces, face_parts == "skin"),
        row_y=row_y,
        azimuth=azimuth,
        below_mouth=_below(grid.mouth_row, slits, lower_bag, row_y),
        below_eye=below_eye,
        eye_edges=slits.eye_edges,
        lid_rims=lid_rims,
        mouth_edges=slits.mouth_edges,
        mouth_bag=mouth_bag,
        tongue=tongue,
        grid_shape=grid.row_y.shape,
    )


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals, zero at vertices of no face. [V, 3]."""
    first, second, third = vertices[faces].swapaxes(0, 1)
    face_normals = np.cross(second - first, third - first)
    normals = np.zeros_like(vertices)
    for corner in faces.T:
        np.add.at(normals, corner, face_normals)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


def _add_skin(mesh: MeshBuilder, grid: Grid) -> _Slits:
    """Add the grid, slit open along lids and lips, and the fan on the crown."""
    upper_ids = mesh.add_vertices(grid.points)
    pole = int(mesh.add_vertices(grid.crown)[0])
    lower_ids, eye_edges = upper_ids.copy(), {}
    for side, sign in SIDES.items():
        columns = _columns_between(grid.azimuth * sign, INNER_CANTHUS, OUTER_CANTHUS)
        lower_lid = mesh.add_vertices(grid.lower_lid[columns[1:-1]])
        lower_ids[grid.eye_row, columns[1:-1]] = lower_lid
        eye_edges[f"{side}_upper"] = upper_ids[grid.eye_row, columns]
        eye_edges[f"{side}_lower"] = lower_ids[grid.eye_row, columns]
    columns = _columns_between(grid.azimuth, -MOUTH_CORNER, MOUTH_CORNER)
    inner = grid.points[grid.mouth_row, columns[1:-1]]
    lower_ids[grid.mouth_row, columns[1:-1]] = mesh.add_vertices(inner)
    rows = (upper_ids[grid.mouth_row, columns], lower_ids[grid.mouth_row, columns])
    mesh.add_fan(pole, upper_ids[0], "skin")
    for above, below in zip(lower_ids[:-1], upper_ids[1:], strict=True):
        right_half = slice(len(above) // 2, None)
        mesh.add_strip(close_ring(above), close_ring(below), "skin", mirrored=right_half)
    return _Slits(upper_ids, lower_ids, eye_edges, dict(zip(LIDS, rows, strict=True)))


def _columns_between(azimuth: np.ndarray, low: float, high: float) -> np.ndarray:
    """Columns from `low` to `high`, both included, by growing azimuth."""
    columns = np.flatnonzero((azimuth > low - 1e-6) & (azimuth < high + 1e-6))
    return columns[np.argsort(azimuth[columns])]


def _grid_coordinates(
    grid: Grid, slits: _Slits, num_vertices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Unbent row height and column angle of every vertex. [V] each."""
    row_y, azimuth = np.full(num_vertices, -50.0), np.full(num_vertices, 180.0)
    row_y[grid.row_y.size] = 50  # the pole follows the grid
    for ids in (slits.lower_ids, slits.upper_ids):
        row_y[ids] = grid.row_y
        azimuth[ids] = np.broadcast_to(grid.azimuth, ids.shape)
    # The rows' heights at the slits, free of rounding.
    for edges, line in ((slits.eye_edges, EYE_LINE), (slits.mouth_edges, MOUTH_LINE)):
        row_y[np.concatenate(list(edges.values()))] = line
    return row_y, azimuth


def _lower_edges(edges: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The lower edges without the corners, which they share with the upper ones."""
    return [edge[1:-1] for key, edge in edges.items() if key.endswith("lower")]


def _below(row: int, slits: _Slits, others: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    """Whether each vertex lies in a grid row below the given one, or is listed. [V], bool."""
    below = np.zeros(like.shape, bool)
    for ids in (slits.upper_ids[row + 1 :].ravel(), slits.lower_ids[row + 1 :].ravel(), *others):
        below[ids] = True
    return below


def _parts_of_vertices(faces: np.ndarray, face_parts: np.ndarray, num_vertices: int) -> np.ndarray:
    """The part of each vertex; on seams the skin wins. [V]."""
    parts = np.full(num_vertices, "skin", dtype=face_parts.dtype)
    parts[faces] = face_parts[:, None]
    parts[faces[face_parts == "skin"]] = "skin"
    return parts


def _seam_normals(vertices: np.ndarray, faces: np.ndarray, is_skin: np.ndarray) -> np.ndarray:
    """Vertex normals that ignore the lids and the mouth's inside where the skin meets them."""
    skin_normals = vertex_normals(vertices, faces[is_skin])
    on_skin = (skin_normals != 0).any(axis=-1, keepdims=True)
    return np.where(on_skin, skin_normals, vertex_normals(vertices, faces))
