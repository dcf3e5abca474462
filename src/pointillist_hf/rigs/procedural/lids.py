# SPDX-License-Identifier: Apache-2.0
"""How the lids move over the eyeball.

Centimetres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .eyes import RIM_HEIGHT
from .fields import SIDES, on_side
from .grid import EYE_LINE, INNER_CANTHUS, OUTER_CANTHUS
from .primitives import length
from .sculpt import EYE_CENTRE, EYE_RADIUS
from .template import HeadTemplate


@dataclass(frozen=True)
class Clearance:
    """How far over the eyeball the lids stay, centimetres."""

    upper: float
    lower: float
    upper_rim: float
    lower_rim: float


OPEN = Clearance(upper=0.125, lower=0.125, upper_rim=RIM_HEIGHT, lower_rim=RIM_HEIGHT)
# Shut, the upper lid lies on the lower one. Motions are straight, so the rims must end higher than
# they began, or they would cut through the eyeball half-way.
SHUT = Clearance(upper=0.22, lower=0.14, upper_rim=0.17, lower_rim=0.12)
# Fractions of the opening. The lids cross by as much as the widest and largest eyes of the
# population need to meet; beyond, the upper rim hangs on as a curtain.
CLOSING, CURTAIN = {"upper": 1.02, "lower": 0.30}, 0.22


def lid_motion(template: HeadTemplate, side: str, *, upper: float, lower: float) -> np.ndarray:
    """Displacement of both lids of an eye.

    Args:
        template: The neutral head.
        side: "left" or "right".
        upper: Fraction of the opening that the upper lid crosses; negative opens the eye.
        lower: The same for the lower lid.

    Returns:
        Centimetres. [V, 3].
    """
    motion = _cross_opening(template, side, upper=upper, lower=lower)
    return _clear_of_eyeball(template, side, motion, OPEN)


def close_lids(template: HeadTemplate, side: str) -> np.ndarray:
    """Displacement that shuts an eye, also one that is larger or wider open than the neutral one.

    The upper lid comes to lie over the edge of the lower one, by more on small eyes. [V, 3].
    """
    motion = _cross_opening(template, side, **CLOSING)
    gap = _opening(template, side)
    motion[template.lid_rims[f"{side}_upper"]] += CURTAIN * gap
    return _clear_of_eyeball(template, side, motion, SHUT)


def _opening(template: HeadTemplate, side: str) -> np.ndarray:
    """Vectors from the upper to the lower lid's edge, from the inner to the outer canthus."""
    upper, lower = (template.eye_edges[f"{side}_{lid}"] for lid in ("upper", "lower"))
    return template.vertices[lower] - template.vertices[upper]


def _cross_opening(template: HeadTemplate, side: str, *, upper: float, lower: float) -> np.ndarray:
    """Both lids moved straight across the given fractions of the opening. [V, 3]."""
    gap = _opening(template, side)
    columns = np.abs(template.azimuth[template.eye_edges[f"{side}_upper"]])
    motion = np.zeros_like(template.vertices)
    for lid, crossed in (("upper", upper * gap), ("lower", -lower * gap)):
        ids, weights = _lid_skin(template, side, lid)
        at = np.abs(template.azimuth[ids])
        spread = np.stack([np.interp(at, columns, part) for part in crossed.T], axis=-1)
        motion[ids] = spread * weights[:, None]
        motion[template.lid_rims[f"{side}_{lid}"]] = crossed
    return motion


def _lid_skin(template: HeadTemplate, side: str, lid: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the skin above or below an eye, and how much of the lid edge's motion it follows."""
    column = template.azimuth * SIDES[side]
    # Rows above the eye count up, those below down; off the grid both are far away.
    from_edge = template.row_y - EYE_LINE if lid == "upper" else EYE_LINE - template.row_y
    reach, power = (1.25, 1.2) if lid == "upper" else (1.0, 1.4)
    on_lid = (column > INNER_CANTHUS - 1e-6) & (column < OUTER_CANTHUS + 1e-6)
    on_lid &= (from_edge > -1e-6) & (from_edge < reach) & (template.below_eye == (lid == "lower"))
    ids = np.flatnonzero(on_lid)
    return ids, (1 - np.maximum(from_edge[ids], 0) / reach) ** power


def _clear_of_eyeball(
    template: HeadTemplate, side: str, motion: np.ndarray, over_eyeball: Clearance
) -> np.ndarray:
    """The motion with what comes closer to the eyeball than its clearance pushed out. [V, 3]."""
    centre = on_side(EYE_CENTRE, SIDES[side])
    offsets = template.vertices + motion - centre
    clearance = np.where(template.below_eye, over_eyeball.lower, over_eyeball.upper) + EYE_RADIUS
    clearance[template.lid_rims[f"{side}_upper"]] = EYE_RADIUS + over_eyeball.upper_rim
    clearance[template.lid_rims[f"{side}_lower"]] = EYE_RADIUS + over_eyeball.lower_rim
    distance = length(offsets)
    inside = (np.abs(motion).sum(axis=-1) > 1e-6) & (distance < clearance)
    pushed = offsets * np.where(inside, clearance / np.maximum(distance, 1e-9), 1)[:, None]
    return motion + pushed - offsets
