# SPDX-License-Identifier: Apache-2.0
"""Named vertex regions and the 68 facial landmarks of the procedural head.

Centimetres; x points to the subject's left, y up, z out of the face. Landmarks are in the iBUG
order: jaw line, brows and eyes run from the subject's right to the left.
"""

from __future__ import annotations

import numpy as np

from .fields import SIDES, on_side
from .grid import MOUTH_CORNER
from .primitives import length
from .region_masks import (
    BROW_INNER,
    BROW_OUTER,
    beard_mask,
    brow_line,
    brow_mask,
    cloth_mask,
    lip_borders,
    lip_mask,
    scalp_mask,
)
from .sculpt import EYE_CENTRE
from .template import HeadTemplate

# The subject's left half of the jaw line, from the ear to the chin.
JAW_LINE = [
    *[(6.95, 1.4, 0.3), (6.8, -0.3, 0.4), (6.5, -2.0, 0.6), (6.0, -3.6, 1.0), (5.2, -5.0, 2.1)],
    *[(4.2, -6.1, 3.6), (3.0, -6.9, 5.0), (1.6, -7.6, 6.3), (0, -7.9, 6.9)],
]
NOSE_BRIDGE = [(0, 2.6, 7.9), (0, 1.5, 8.2), (0, 0.4, 8.9), (0, -0.65, 9.8)]
NOSE_BASE = [
    *[(-1.3, -1.45, 8.0), (-0.65, -1.75, 8.4), (0, -1.85, 8.6), (0.65, -1.75, 8.4)],
    (1.3, -1.45, 8.0),
]
# Parts of the mesh that are regions of their own.
OWN_PARTS = (
    *("teeth_upper", "teeth_lower", "tongue"),
    *("eye_left", "eye_right", "ear_left", "ear_right"),
)
# Stations from the subject's right (-1) to the left (1) corner.
UPPER_LIP_STATIONS, LOWER_LIP_STATIONS = (-0.6, -0.22, 0, 0.22, 0.6), (0.6, 0.25, 0, -0.25, -0.6)


def build_masks(template: HeadTemplate) -> dict[str, np.ndarray]:
    """Vertex ids by region; regions overlap."""
    points, parts = template.vertices, template.vertex_parts
    y, z = points[:, 1], points[:, 2]
    skin, rows = parts == "skin", template.row_y
    scalp = skin & (scalp_mask(points) > 0.5)
    lips = skin & (lip_mask(points, rows, template.azimuth) > 0.4)
    shoulders = skin & (y < -13.6)
    nape = (y < -4.5) & (z < -1) & ~scalp
    neck = skin & ~shoulders & ((y < -8.2) | nape)
    nose = (np.abs(points[:, 0]) < 1.75) & (y < 2.6) & (y > -1.95) & (z > 7.3)
    to_eye = [length(points - on_side(EYE_CENTRE, sign)) for sign in SIDES.values()]
    is_boundary = np.zeros(len(points), bool)
    num_rows, num_columns = template.grid_shape
    is_boundary[(num_rows - 1) * num_columns : num_rows * num_columns] = True
    masks = {
        "scalp": scalp,
        "face": skin & ~scalp & ~neck & ~shoulders & (z > 0),
        "lips": lips,
        "brows": skin & (brow_mask(points) > 0.3),
        "beard": skin & (beard_mask(points) > 0.5) & ~lips,
        "nose": skin & nose,
        "eye_region": skin & (np.minimum(*to_eye) < 2.1),
        "neck": neck,
        "shoulders": shoulders,
        "clothes": skin & (cloth_mask(points) > 0.5),
        "boundary": is_boundary,
        "mouth_interior": parts == "mouth",
        "eyelids": parts == "lid",
        "left_half": points[:, 0] >= 0,
    }
    masks |= {part: parts == part for part in OWN_PARTS}
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


def build_landmarks(template: HeadTemplate) -> tuple[np.ndarray, np.ndarray]:
    """Faces [68] and barycentric coordinates [68, 3] of the landmarks; all lie on the skin."""
    jaw = [on_side(point, -1) for point in JAW_LINE] + JAW_LINE[-2::-1]
    left_brow = _brow_points()
    brows = [*(left_brow * (-1, 1, 1))[::-1], *left_brow]
    face = np.concatenate([jaw, brows, NOSE_BRIDGE, NOSE_BASE, _eye_points(template)])
    is_skin = template.face_parts == "skin"
    points = np.concatenate([face, _outer_lip_points(template), _inner_lip_points(template)])
    face_ids, barycentric = _closest_faces(template, np.flatnonzero(is_skin), points)
    # The lips touch: faces of the lower one must not catch landmarks of the upper, or vice versa.
    below = template.below_mouth[template.faces].any(axis=-1)
    for landmarks, lip in ((slice(60, 65), ~below), (slice(65, 68), below)):
        found = _closest_faces(template, np.flatnonzero(is_skin & lip), points[landmarks])
        face_ids[landmarks], barycentric[landmarks] = found
    return face_ids, barycentric


def _brow_points() -> np.ndarray:
    """Five points along the left brow, inner to outer. [5, 3]."""
    station = np.linspace(0, 1, 5)
    x = BROW_INNER + (BROW_OUTER - BROW_INNER) * station
    return np.stack([x, brow_line(station), 7.8 - 0.12 * x**2], axis=-1)


def _eye_points(template: HeadTemplate) -> list[np.ndarray]:
    """Corners and lid edges of the right, then the left eye. 12 of [3]."""
    points = []
    for side, upper_stations, lower_stations in (
        ("right", (1, 0.66, 0.33, 0), (0.33, 0.66)),
        ("left", (0, 0.33, 0.66, 1), (0.66, 0.33)),
    ):
        for lid, stations in (("upper", upper_stations), ("lower", lower_stations)):
            edge = template.vertices[template.eye_edges[f"{side}_{lid}"]]
            points += [_along(edge, station) for station in stations]
    return points


def _along(row: np.ndarray, station: float) -> np.ndarray:
    """Point at a fraction of a row's length, counted in vertices. [3]."""
    steps = np.arange(len(row)) / (len(row) - 1)
    return np.array([np.interp(station, steps, coordinate) for coordinate in row.T])


def _outer_lip_points(template: HeadTemplate) -> np.ndarray:
    """Vertices on the border of the vermilion, clockwise from the right corner. [12, 3]."""
    right, left = template.mouth_edges["upper"][[0, -1]]
    upper = [_lip_border_vertex(template, station, "upper") for station in UPPER_LIP_STATIONS]
    lower = [_lip_border_vertex(template, station, "lower") for station in LOWER_LIP_STATIONS]
    return template.vertices[[right, *upper, left, *lower]]


def _lip_border_vertex(template: HeadTemplate, station: float, lip: str) -> int:
    """The vertex nearest to a lip's border, in the grid's coordinates."""
    top, bottom = lip_borders(np.abs(station))
    row = top if lip == "upper" else bottom
    on_lip = template.below_mouth == (lip == "lower")
    ids = np.flatnonzero(on_lip & (template.row_y > -49) & (np.abs(template.azimuth) < 30))
    across = (template.azimuth[ids] - station * MOUTH_CORNER) / 8  # 8 degrees weigh as much as 1 cm
    return int(ids[np.argmin(across**2 + (template.row_y[ids] - row) ** 2)])


def _inner_lip_points(template: HeadTemplate) -> np.ndarray:
    """Points on the edges of the slit, clockwise from the right corner. [8, 3]."""
    upper, lower = template.mouth_edges["upper"], template.mouth_edges["lower"]
    last = len(upper) - 1
    on_upper = [1, *[int(q * last) for q in (0.3, 0.5, 0.7)], last - 1]
    on_lower = [int(q * last) for q in (0.7, 0.5, 0.3)]
    return template.vertices[np.concatenate([upper[on_upper], lower[on_lower]])]


def _closest_faces(
    template: HeadTemplate, face_ids: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Face nearest to each point and barycentric coordinates on it. [N], [N, 3].

    Projections outside a face are clipped into it, which is exact enough a few millimetres away.
    """
    corners = template.vertices[template.faces[face_ids]]
    origin, edges = corners[:, 0], corners[:, 1:] - corners[:, :1]  # [F, 3], [F, 2, 3]
    inverse = np.linalg.inv(edges @ edges.swapaxes(1, 2))
    nearest, coordinates = [], []
    for point in points:
        along = np.einsum("fab,fbi,fi->fa", inverse, edges, point - origin)
        barycentric = np.column_stack([1 - along.sum(axis=-1), along]).clip(0, 1)
        barycentric /= barycentric.sum(axis=-1, keepdims=True)
        offsets = np.einsum("fc,fci->fi", barycentric, corners) - point
        nearest.append(int(np.argmin(length(offsets))))
        coordinates.append(barycentric[nearest[-1]])
    return face_ids[nearest], np.array(coordinates)
