# SPDX-License-Identifier: Apache-2.0
"""Skin and what grows or is painted on it, one function per feature.

Each feature takes the colours so far and returns them with itself added. Centimetres; x points to
the subject's left, y up, z out of the face.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...rigs.procedural.fields import bell, smoothstep
from ...rigs.procedural.region_masks import beard_mask, brow_mask, lip_mask, scalp_mask
from .appearance import Appearance
from .noise import value_noise
from .places import SurfacePlaces, Vector, blend, tint

Feature = Callable[[np.ndarray, SurfacePlaces, "Appearance"], np.ndarray]

# Soft spots of the face: centre (left side), size, colour factor, strength.
FLUSH = (
    ((3.9, -0.9, 5.6), (1.7, 1.4, 2.2), (1.0, 0.80, 0.78), 0.55),  # cheeks
    ((0.0, -0.9, 9.4), (1.1, 0.9, 1.2), (1.0, 0.78, 0.76), 0.50),  # tip of the nose
    ((3.1, 1.35, 6.4), (1.5, 0.45, 1.5), (0.80, 0.70, 0.72), 0.45),  # under the eyes
    ((3.2, 3.2, 6.3), (1.5, 0.4, 1.5), (0.82, 0.72, 0.70), 0.35),  # crease of the lid
    ((2.75, -1.6, 7.0), (0.5, 0.9, 0.8), (0.86, 0.78, 0.76), 0.40),  # side of the nose
)
EAR_FLUSH: Vector = (1.0, 0.90, 0.89)
LID_MARGIN: Vector = (0.86, 0.62, 0.60)
MOUTH_SEAM_Y = -3.92
MOUTH_CORNER = 20.8  # degrees


def skin_color(places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Bare skin with everything that shows on it. [n, 3]."""
    colors = np.asarray(appearance.skin, np.float32) * _mottling(places, appearance)[:, None]
    ears = places.on_parts("ear_left", "ear_right")
    colors[ears] *= EAR_FLUSH
    on_skin = places.on_parts("skin")
    _, y, z = places.points.T
    in_face = on_skin & (z > 3) & (y > -9.5) & (y < 8.5)
    near_eyes = (z > 3) & (np.abs(y - 2.6) < 1.9)
    scenes: tuple[tuple[np.ndarray, tuple[Feature, ...]], ...] = (
        (in_face, (add_flush, add_age_lines, add_folds, add_freckles)),
        (in_face & (np.abs(y + 1.5) < 1), (add_nostrils,)),
        (on_skin & (y > -6), (add_scalp,)),
        (on_skin & (z > -1.5) & (y < 2) & (y > -11), (add_stubble,)),
        (in_face & (y > 3) & (y < 5.5), (add_brows,)),
        (near_lips(places), (add_lips, add_mouth_seam)),
        (near_eyes, (add_lids, add_lashes)),
    )
    for mask, features in scenes:
        inside = np.flatnonzero(mask)
        for add_feature in features:
            colors[inside] = add_feature(colors[inside], places[inside], appearance)
    return colors


def near_lips(places: SurfacePlaces) -> np.ndarray:
    """Which places may lie on the lips. [n]."""
    in_band = np.abs(places.row_y - MOUTH_SEAM_Y) < 1.3
    return in_band & (places.azimuth < 24) & places.on_parts("skin")


def lip_coverage(places: SurfacePlaces) -> np.ndarray:
    """1 on the red of the lips. [n]."""
    return lip_mask(places.points, places.row_y, places.azimuth)


def add_flush(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Cheeks, nose, and the shadows around the eyes."""
    for centre, size, factor, strength in FLUSH:
        colors = tint(colors, factor, strength * places.twin_bump(centre, size))
    return colors


def add_age_lines(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Lines across the forehead."""
    strength = 0.55 * (appearance.age - 0.35)
    if strength <= 0:
        return colors
    x, y, _ = places.points.T
    wavy = y - 0.10 * np.cos(x * 0.9) - 0.25 * (value_noise(places.points, 0.7, shift=11) - 0.5)
    to_line = wavy - (0.72 * np.round((wavy - 6.1) / 0.72) + 6.1)
    band = smoothstep(y, 5.0, 5.6) * (1 - smoothstep(y, 7.2, 7.9)) * np.exp(-((x / 2.6) ** 4))
    broken = value_noise(places.points, (0.8, 3, 0.8))
    return tint(colors, (0.80, 0.70, 0.68), strength * bell(to_line, 0, 0.09) * band * broken)


def add_folds(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Folds from the nose to the corners of the mouth."""
    strength = 0.7 * (appearance.age - 0.35)
    if strength <= 0:
        return colors
    x, y, _ = places.points.T
    ridge = bell(np.abs(x), 1.95 - 0.42 * (1.2 + y), 0.16)
    span = smoothstep(-y, 1.0, 1.8) * (1 - smoothstep(-y, 3.2, 4.0))
    return tint(colors, (0.72, 0.60, 0.58), strength * ridge * span)


def add_freckles(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Freckles over nose and cheeks."""
    if appearance.freckles <= 0:
        return colors
    noise = value_noise(places.points, 5.5, shift=appearance.pattern_shift)
    spots = smoothstep(noise, 0.70, 0.78) * places.twin_bump((2.6, -0.2, 7.2), (3.0, 1.6, 3.0))
    return tint(colors, (0.72, 0.55, 0.45), appearance.freckles * spots)


def add_nostrils(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """The dark of the nostrils, only on the underside of the nose."""
    opening = places.twin_bump((0.62, -1.55, 8.35), (0.30, 0.26, 0.42))
    facing_down = places.normals[:, 1] < -0.15
    return tint(colors, (0.25, 0.14, 0.12), np.clip(1.7 * opening * facing_down, 0, 0.95))


def add_scalp(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """The shade of the hair between its roots."""
    if appearance.hair_tint <= 0:
        return colors
    scalp = scalp_mask(places.points, appearance.hairline)
    return blend(colors, appearance.hair, appearance.hair_tint * scalp)


def add_stubble(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """The shade of a beard under the skin; it never lightens the skin."""
    if appearance.beard_tint <= 0:
        return colors
    skin, hair = np.asarray(appearance.skin), np.asarray(appearance.hair)
    shade = np.minimum(0.5 * hair + 0.3 * skin, 0.82 * skin)
    coverage = beard_mask(places.points) * (1 - lip_coverage(places))
    grain = 0.75 + 0.5 * (value_noise(places.points, 12) - 0.5)
    return blend(colors, shade, appearance.beard_tint * coverage * grain)


def add_brows(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """The shade of the brows under their strands."""
    coverage = brow_mask(places.points, appearance.brow_height, appearance.brow_thickness)
    grain = np.clip(0.6 + 0.9 * value_noise(places.points, (5, 9, 5), shift=3), 0, 1)
    return blend(colors, appearance.brow, appearance.brow_tint * coverage * grain)


def add_lips(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """The red of the lips."""
    return blend(colors, appearance.lip, 0.88 * lip_coverage(places))


def add_mouth_seam(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """The dark line between closed lips."""
    seam = bell(places.row_y, MOUTH_SEAM_Y, 0.07) * (places.azimuth < MOUTH_CORNER)
    return tint(colors, (0.35, 0.20, 0.20), 0.75 * seam)


def add_lids(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """The moist margin of the lids, and eye shadow above it."""
    margin = np.asarray(appearance.skin) * LID_MARGIN
    colors = blend(colors, margin, 0.8 * places.on_parts("lid"))
    shadow = bell(places.upper_lid_distance, 0.15, 0.3) * places.on_parts("skin")
    return tint(colors, (0.55, 0.42, 0.50), appearance.makeup * shadow)


def add_lashes(colors: np.ndarray, places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """The dark line at the roots of the lashes."""
    on_eye = ~places.on_parts("ear_left", "ear_right")
    upper = 0.9 * bell(places.upper_lid_distance, 0, 0.07) * on_eye
    colors = tint(colors, (0.14, 0.10, 0.09), upper)
    return tint(colors, (0.45, 0.33, 0.30), 0.6 * bell(places.lower_lid_distance, 0, 0.04) * on_eye)


def _mottling(places: SurfacePlaces, appearance: Appearance) -> np.ndarray:
    """Uneven brightness of the skin at two scales, around 1. [n]."""
    coarse = value_noise(places.points, 1.1, shift=appearance.pattern_shift)
    fine = value_noise(places.points, 4.5, shift=appearance.pattern_shift)
    return 1 + 0.10 * (0.6 * coarse + 0.4 * fine - 0.5)
