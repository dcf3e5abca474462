# SPDX-License-Identifier: Apache-2.0
"""Joints, skinning weights and the joint regressor of the procedural head.

Centimetres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

import numpy as np

from .fields import SIDES, bell, on_side, smoothstep
from .grid import MOUTH_CORNER, MOUTH_LINE
from .sculpt import EYE_CENTRE
from .template import HeadTemplate

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
PARENTS = (-1, 0, 1, 1, 1)
JOINTS = np.array(
    [(0, -14.0, -3.2), (0, -9.5, -3.0), (0, -0.6, 0.0), EYE_CENTRE, on_side(EYE_CENTRE, -1)]
)
NUM_SMOOTHING_STEPS = 5

# Jaw weight by row of the mouth bag: in the middle, and how far the corners pull it to a half.
UPPER_BAG_JAW = [(0, 0.5), (0, 0.5), (0.1, 0.35), (0.4, 0)]
TONGUE_JAW = ([4.1, 5.6], [0.5, 1])  # z, weight
LOWER_BAG_JAW = [(1, -0.5), (1, -0.5), (0.85, -0.4), (0.4, 0)]


def build_skin_weights(template: HeadTemplate) -> np.ndarray:
    """Weights of root, neck, jaw and both eyes; rows sum to one. [V, 5]."""
    head, jaw = _head_weights(template), build_jaw_weights(template)
    rest = np.zeros_like(head)
    weights = np.stack([1 - head, head * (1 - jaw), head * jaw, rest, rest], axis=-1)
    for side in SIDES:
        is_eye = template.vertex_parts == f"eye_{side}"
        weights[is_eye] = np.eye(len(JOINT_NAMES))[JOINT_NAMES.index(f"{side}_eye")]
    return weights


def build_jaw_weights(template: HeadTemplate) -> np.ndarray:
    """How much of the head's motion at each vertex is the jaw's. [V]."""
    weights = _jaw_wedge(template)
    weights[template.vertex_parts != "skin"] = 0
    for lip, rows in (("upper", UPPER_BAG_JAW), ("lower", LOWER_BAG_JAW)):
        for ids, (middle, corner_pull) in zip(template.mouth_bag[lip], rows, strict=True):
            across = np.abs(np.linspace(-1, 1, len(ids)))
            weights[ids] = middle + corner_pull * across**3
    weights[template.vertex_parts == "teeth_lower"] = 1
    weights[template.tongue] = np.interp(template.vertices[template.tongue, 2], *TONGUE_JAW)
    return _smooth_over_skin(template, weights)


def build_joint_regressor(template: HeadTemplate) -> np.ndarray:
    """Affine combinations of vertices that give the joints; rows sum to one. [5, V]."""
    rows, columns = template.grid_shape
    grid_ids = np.arange(rows * columns).reshape(rows, columns)
    heights = template.vertices[grid_ids, 1]
    on_ear_line = np.abs(np.abs(template.azimuth[grid_ids]) - 88) < 20
    supports = [
        *[_rows_around(grid_ids, heights.mean(axis=1), joint[1]) for joint in JOINTS[:2]],
        grid_ids[on_ear_line & (heights > -3.2) & (heights < 2.0)],
        *[np.flatnonzero(template.vertex_parts == f"eye_{side}") for side in SIDES],
    ]
    regressor = np.zeros((len(JOINTS), len(template.vertices)))
    for row, ids, joint in zip(regressor, supports, JOINTS, strict=True):
        row[ids] = _affine_weights(template.vertices[ids], joint)
    return regressor


def _head_weights(template: HeadTemplate) -> np.ndarray:
    """Neck against root: rising from the shoulders to the jaw, lower at the nape. [V]."""
    _, y, z = template.vertices.T
    weights = smoothstep(y - 0.25 * np.clip(-z - 2.5, -5, 6), -15.0, -8.2)
    weights[~np.isin(template.vertex_parts, ("skin", "lid"))] = 1
    return weights


def _jaw_wedge(template: HeadTemplate) -> np.ndarray:
    """Jaw weight by the angle about the jaw's axis, split at the lips, soft on the cheeks. [V]."""
    _, y, z = template.vertices.T
    off_middle = np.abs(template.azimuth)
    threshold = _lip_line_angles(template)
    width = 1 + 30 * smoothstep(off_middle, 19, 52)
    weights = smoothstep(_jaw_angles(template.vertices), threshold - width, threshold + width)
    weights = np.where(off_middle < MOUTH_CORNER + 0.1, template.below_mouth, weights)
    weights = weights * smoothstep(y, -11.0, -8.0) * smoothstep(z, -3.5, 1.5)
    weights[template.mouth_edges["upper"][[0, -1]]] = 0.5
    # Lips pull towards a half at the corners, so that an open mouth is an almond, not a slot.
    near_lips = bell(template.row_y, MOUTH_LINE, 1.1) * (off_middle < MOUTH_CORNER - 1e-6)
    pull = np.clip(off_middle / MOUTH_CORNER, 0, 1) ** 3 * near_lips
    return weights + (0.5 - weights) * pull


def _lip_line_angles(template: HeadTemplate) -> np.ndarray:
    """Angle about the jaw's axis of the mouth row in each vertex's column. [V]."""
    columns = template.grid_shape[1]
    mouth_row = template.mouth_edges["upper"][0] // columns
    # The columns of the left half come first, from the middle of the face to that of the nape.
    ids = mouth_row * columns + np.arange(columns // 2 + 1)
    angles = _jaw_angles(template.vertices[ids])
    return np.interp(np.abs(template.azimuth), template.azimuth[ids], angles)


def _jaw_angles(points: np.ndarray) -> np.ndarray:
    """Angle below the horizon seen from the jaw's axis, degrees. [...]."""
    _, y, z = np.moveaxis(points - JOINTS[JOINT_NAMES.index("jaw")], -1, 0)
    return np.degrees(np.arctan2(-y, z))


def _smooth_over_skin(template: HeadTemplate, weights: np.ndarray) -> np.ndarray:
    """Weights averaged along skin edges; the slits are no edges and stay sharp. [V]."""
    faces = template.faces[template.face_parts == "skin"]
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    start, end = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0).T
    num_vertices = len(weights)
    degree = np.bincount(start, minlength=num_vertices)
    for _ in range(NUM_SMOOTHING_STEPS):
        total = np.bincount(start, weights[end], minlength=num_vertices)
        mean = np.where(degree > 0, total / np.maximum(degree, 1), weights)
        weights = 0.5 * weights + 0.5 * mean
    return weights


def _rows_around(grid_ids: np.ndarray, heights: np.ndarray, height: float) -> np.ndarray:
    """Ids of the grid row nearest to a height and of both its neighbours. [3 * C]."""
    row = int(np.argmin(np.abs(heights - height)))
    return grid_ids[max(row - 1, 0) : row + 2].ravel()


def _affine_weights(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The most even weights that sum to one and take the points to the target. [N]."""
    even = np.full(len(points), 1 / len(points))
    system = np.concatenate([points.T, np.ones((1, len(points)))])
    missing = np.append(target, 1.0) - system @ even
    # Least norm rather than a solve of the normal equations: exact, also for flat rings.
    return even + np.linalg.pinv(system) @ missing
