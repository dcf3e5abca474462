# SPDX-License-Identifier: Apache-2.0
"""The garment on the shoulders: where it covers the skin, and its fabric.

Centimetres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

import numpy as np

from ...rigs.procedural.fields import bell
from ...rigs.procedural.region_masks import cloth_mask
from .appearance import Appearance
from .noise import value_noise
from .places import SurfacePlaces

HIGHEST_NECKLINE = -9.0
STRIPE_PERIOD = 1.7


def cloth_coverage(places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """1 where the garment hides the skin. [n]."""
    coverage = np.zeros(len(places), np.float32)
    low = np.flatnonzero(places.on_parts("skin") & (places.points[:, 1] < HIGHEST_NECKLINE))
    coverage[low] = cloth_mask(places.points[low], appearance.cloth_line)
    return coverage


def cloth_color(places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Woven fabric, stripes if there are any, and a darker seam along the neckline. [n, 3]."""
    weave = value_noise(places.points, (3, 14, 3), shift=appearance.pattern_shift)
    drop = _depth_below_neckline(places.points, appearance.cloth_line)
    shade = (1 + 0.10 * (weave - 0.5)) * (1 - appearance.collar * bell(drop, 0.45, 0.35))
    if appearance.stripes > 0:
        wave = np.sin(2 * np.pi / STRIPE_PERIOD * drop)
        shade = shade * (1 - appearance.stripes * np.clip(0.5 + 4 * wave, 0, 1))
    return np.asarray(appearance.cloth, np.float32) * shade[:, None]


def _depth_below_neckline(points: np.ndarray, cloth_line: float) -> np.ndarray:
    """Vertical distance to the neckline, which sags at the front. [n]."""
    return cloth_line - 1.3 * np.clip((points[:, 2] + 3) / 5, -0.5, 1.2) - points[:, 1]
