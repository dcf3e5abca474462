# SPDX-License-Identifier: Apache-2.0
"""A human head as a signed distance: anatomical primitives, joined and carved in order.

Centimetres; x points to the subject's left, y up, z out of the face. The parts are given on the
left and mirrored through |x|.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .primitives import Ellipsoid, Group, Limb, join_parts, length, smooth_min

EYE_CENTRE = np.array([3.12, 2.5, 5.25])  # the left one
EYE_RADIUS = 1.2
LID_THICKNESS = 0.14

NOSE = (
    Limb(
        "bridge",
        [(0, 3.3, 6.70), (0, 1.7, 7.35), (0, -0.2, 8.60)],
        [0.66, 0.52, 0.56],
        inner_blend=0.4,
    ),
    Limb("side walls", [(0, 2.8, 6.1), (0, 0.6, 7.0), (0, -0.9, 7.7)], [1.05, 1.15, 1.05], 0.9),
    Ellipsoid("tip", (0, -0.84, 8.80), (0.84, 0.84, 0.92), 0.7),
    Ellipsoid("wings", (1.02, -1.18, 7.95), (0.56, 0.56, 0.80), 0.4, yaw=-20),
    Limb("columella", [(0, -1.25, 8.80), (0, -1.85, 8.1)], [0.42, 0.36], 0.4),
)
NECK = (
    Limb("column", [(0, -2.0, -2.9), (0, -8.5, -2.5), (0, -16.0, -3.4)], [5.2, 4.75, 5.2]),
    Limb("sternomastoid", [(1.2, -13.6, 1.6), (4.5, -4.0, -3.2)], [0.8, 0.9], 2.0),
    Ellipsoid("larynx", (0, -9.0, 1.8), (1.0, 1.6, 0.9), 1.2),
)
SHOULDERS = (
    Limb(
        "trapezius",
        [(2.0, -11.0, -5.4), (7.0, -15.8, -4.6), (14.0, -19.0, -3.4)],
        [2.3, 2.9, 4.4],
        inner_blend=3.0,
    ),
    Ellipsoid("chest", (0, -22.0, -2.4), (14.5, 7.0, 8.0), 3.0),
    Limb(
        "clavicle",
        [(1.5, -15.6, 3.0), (7.0, -16.0, 1.9), (13.0, -17.2, -1.6)],
        [0.7, 0.6, 0.7],
        2.4,
        inner_blend=0.5,
    ),
)
HEAD = (
    Ellipsoid("cranium", (0, 5.3, -2.0), (7.35, 8.0, 8.9)),
    Ellipsoid("frontal bone", (0, 5.0, 0.4), (6.5, 6.6, 7.45), 1.6),
    Ellipsoid("occiput", (0, 1.6, -3.6), (6.5, 6.2, 6.5), 1.6),
    Ellipsoid("face block", (0, -0.4, 1.5), (5.75, 6.0, 5.8), 2.0),
    Ellipsoid("mouth floor", (0, -4.2, 2.6), (4.1, 3.5, 4.2), 2.0),
    Limb(
        "mandible",
        [
            *[(4.75, -2.4, -0.9), (3.95, -4.5, 0.8), (2.05, -6.4, 4.8)],
            *[(0.5, -7.05, 5.95), (0, -7.05, 5.95)],
        ],
        [1.0, 1.0, 1.1, 1.25, 1.25],
        1.8,
        inner_blend=0.8,
    ),
    Ellipsoid("chin", (0, -6.8, 6.3), (1.6, 1.30, 1.40), 1.2),
    Ellipsoid("zygoma", (4.3, 0.3, 3.9), (1.7, 1.35, 2.0), 2.2, yaw=35),
    Limb("zygomatic arch", [(4.8, 0.2, 3.4), (5.65, 0.4, 0.2)], [0.85, 0.75], 2.6),
    Ellipsoid("masseter", (4.35, -1.6, 0.9), (1.20, 2.8, 2.4), 2.2),
    Ellipsoid("cheek fat", (3.1, -2.0, 4.2), (2.3, 2.9, 2.35), 2.2),
    Ellipsoid("maxilla", (0, -3.4, 5.2), (2.9, 2.8, 2.65), 1.6),
    Limb(
        "brow ridge",
        [(0.4, 3.9, 7.0), (2.2, 4.3, 6.75), (4.0, 4.15, 5.35), (4.9, 3.4, 4.4)],
        [0.50, 0.48, 0.54, 0.48],
        1.8,
    ),
    Ellipsoid("temple", (8.35, 4.0, 3.8), (1.7, 2.6, 2.8), 1.8, carve=True),
    Ellipsoid("eye socket", (3.1, 2.5, 7.30), (1.80, 1.05, 1.30), 1.0, yaw=22, carve=True),
    Limb(
        "lid crease",
        [(1.9, 2.95, 6.95), (2.9, 3.32, 6.92), (4.0, 3.28, 6.50), (4.75, 2.95, 5.85)],
        [0.16, 0.24, 0.24, 0.14],
        0.3,
        inner_blend=0.2,
        carve=True,
    ),
    Ellipsoid("inner canthus", (1.5, 2.2, 8.02), (0.5, 0.8, 1.05), 0.9, carve=True),
    Group("nose", NOSE, 0.6),
    Limb(
        "upper lip",
        [(0, -3.60, 8.08), (0.42, -3.53, 8.08), (1.25, -3.63, 7.72), (2.5, -3.90, 6.70)],
        [0.37, 0.40, 0.36, 0.20],
        0.15,
        inner_blend=0.25,
    ),
    Limb(
        "lower lip",
        [(0, -4.36, 7.92), (0.5, -4.36, 7.90), (1.5, -4.22, 7.44), (2.45, -3.98, 6.66)],
        [0.50, 0.50, 0.42, 0.22],
        0.20,
        inner_blend=0.25,
    ),
    Limb("philtrum", [(0, -2.1, 8.45), (0, -2.95, 8.58)], [0.24, 0.28], 0.25, carve=True),
    Limb(
        "nasolabial fold",
        [(1.75, -1.15, 8.22), (2.35, -2.1, 8.0), (2.95, -3.0, 7.55), (3.3, -3.8, 7.2)],
        [0.20, 0.27, 0.24, 0.02],
        0.9,
        inner_blend=0.3,
        carve=True,
    ),
    Limb(
        "mentolabial fold",
        [(0, -5.35, 8.38), (0.5, -5.35, 8.36), (1.4, -5.2, 7.95)],
        [0.42, 0.42, 0.3],
        0.7,
        carve=True,
    ),
    Group("neck", NECK, 1.8),
    Group("shoulders", SHOULDERS, 3.0),
)


def head_distance(points: np.ndarray, *, lids: bool = True) -> np.ndarray:
    """Signed distance to the skin in centimetres, negative inside. [...].

    Args:
        points: Centimetres. [..., 3].
        lids: Whether the eyeballs bulge through the skin, as closed lids would.
    """
    folded = np.array(points, float)
    folded[..., 0] = np.abs(folded[..., 0])
    distance = join_parts(HEAD, folded)
    if not lids:
        return distance
    over_eye = length(folded - EYE_CENTRE) - (EYE_RADIUS + LID_THICKNESS)
    return smooth_min(distance, over_eye, 0.5)


def skin_normals(points: np.ndarray, *, step: float = 1e-3) -> np.ndarray:
    """Unit gradient of the distance, by central differences. [..., 3]."""
    offsets = step * np.eye(3)
    differences = [head_distance(points + axis) - head_distance(points - axis) for axis in offsets]
    gradient = np.stack(differences, axis=-1)
    return gradient / length(gradient)[..., None]


def cast_rays(
    origins: np.ndarray,
    directions: np.ndarray,
    *,
    reach: float = 26.0,
    num_samples: int = 120,
    distance: Callable[[np.ndarray], np.ndarray] = head_distance,
) -> np.ndarray:
    """First point at which each ray, starting inside, leaves the head. [N, 3].

    Sampling brackets the crossing; bisection narrows the bracket to a billionth of a step.
    """
    steps = np.linspace(0, reach, num_samples)
    crossing = np.full(len(origins), num_samples - 1)
    pending = np.arange(len(origins))
    for k, step in enumerate(steps):
        outside = distance(origins[pending] + step * directions[pending]) > 0
        crossing[pending[outside]] = k
        pending = pending[~outside]
    near, far = steps[np.maximum(crossing - 1, 0)], steps[crossing]
    for _ in range(30):
        middle = (near + far) / 2
        inside = distance(origins + middle[:, None] * directions) <= 0
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    return origins + directions * ((near + far) / 2)[:, None]
