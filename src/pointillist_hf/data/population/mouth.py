# SPDX-License-Identifier: Apache-2.0
"""Inside of the mouth: lining, tongue, teeth and gums.

Centimetres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

import numpy as np

from ...rigs.procedural.fields import bell, smoothstep
from .appearance import Appearance
from .places import PART_IDS, SurfacePlaces, blend

LINING = (0.62, 0.27, 0.27)
THROAT = (0.16, 0.05, 0.05)
TONGUE = (0.74, 0.40, 0.40)
TOOTH = (0.93, 0.90, 0.83)
GUM = (0.70, 0.36, 0.36)
UPPER_TOOTH_WIDTH, LOWER_TOOTH_WIDTH = 0.78, 0.58
UPPER_GUM_LINE, LOWER_GUM_LINE = -3.5, -4.85


def mouth_color(places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Lining that darkens towards the throat. [n, 3]."""
    x, _, z = places.points.T
    depth = smoothstep(7.1 - 0.12 * x * x - z, 0, 2)
    return blend(np.tile(np.asarray(LINING, np.float32), (len(places), 1)), THROAT, depth)


def tongue_color(places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """The tongue with its furrow, in shadow towards the root. [n, 3]."""
    x, _, z = places.points.T
    colors = np.tile(np.asarray(TONGUE, np.float32), (len(places), 1))
    furrow = 0.18 * bell(x, 0, 0.14) * smoothstep(places.normals[:, 1], 0, 0.5)
    colors = colors * (1 - furrow)[:, None]
    return blend(colors, THROAT, 0.8 * smoothstep(5.6 - z, 0, 1.5))


def teeth_color(places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Teeth with dark gaps, gums at their roots, in shadow towards the corners. [n, 3]."""
    x, y, _ = places.points.T
    is_upper = places.part_ids == PART_IDS["teeth_upper"]
    across = x / np.where(is_upper, UPPER_TOOTH_WIDTH, LOWER_TOOTH_WIDTH)
    gap_distance = np.abs(across - np.round(across))
    shade = 1 - 0.28 * bell(gap_distance, 0, 0.06)
    colors = np.asarray(TOOTH, np.float32) * shade[:, None]
    above_gum_line = np.where(is_upper, y - UPPER_GUM_LINE, LOWER_GUM_LINE - y)
    colors = blend(colors, GUM, smoothstep(above_gum_line, 0, 0.22))
    return colors * (1 - 0.45 * smoothstep(np.abs(x), 0.9, 2.4))[:, None]
