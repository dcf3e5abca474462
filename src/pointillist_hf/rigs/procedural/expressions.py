# SPDX-License-Identifier: Apache-2.0
"""The expression space: displacement fields under ARKit's names, full strength at the value 1.

Centimetres; x points to the subject's left, y up, z out of the face. Eyeballs, ears and teeth never
move: gaze and jaw belong to the joints.
"""

from __future__ import annotations

import numpy as np

from .fields import SIDES, Points, bell, on_side, smoothstep, vectors
from .grid import MOUTH_LINE
from .lids import close_lids, lid_motion
from .mouth import TONGUE, TONGUE_OUT, tongue_points
from .primitives import length
from .sculpt import EYE_CENTRE
from .template import HeadTemplate

MOUTH_CORNER_POINT = np.array([2.35, -3.92, 6.5])  # the left one
Fields = dict[str, np.ndarray]


def build_expression_fields(
    template: HeadTemplate, jaw_weights: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Names and displacements of the expressions, centimetres. [V, 3, E].

    Args:
        template: The neutral head.
        jaw_weights: How much each vertex follows the jaw, as `weights.build_jaw_weights`. [V].
    """
    p = Points(template.vertices, template.normals)
    fields: Fields = {}
    for side, sign in SIDES.items():
        one_sided = (
            _brow_and_cheek_fields(template, p, sign)
            | _mouth_corner_fields(p, sign)
            | _lip_side_fields(template, p, sign)
        )
        one_sided = {name: _soft_only(template, field) for name, field in one_sided.items()}
        one_sided |= _lid_fields(template, p, side)
        fields |= {f"{name}{side.title()}": field for name, field in one_sided.items()}
    central = _central_fields(template, p) | _lip_fields(template, p)
    fields |= {name: _soft_only(template, field) for name, field in central.items()}
    for name, shift in (
        ("jawForward", (0, 0, 0.55)),
        ("jawLeft", (0.55, 0, 0)),
        ("jawRight", (-0.55, 0, 0)),
    ):
        fields[name] = jaw_weights[:, None] * np.array(shift)
    fields["tongueOut"] = _tongue_field(template)
    return list(fields), np.stack(list(fields.values()), axis=-1)


def _soft_only(template: HeadTemplate, field: np.ndarray) -> np.ndarray:
    """The field on skin, lids and the mouth's inside, zero on everything hard."""
    is_soft = np.isin(template.vertex_parts, ("skin", "lid", "mouth"))
    return field * is_soft[:, None]


def _off_lids(p: Points) -> np.ndarray:
    """0 on the lids, 1 beyond them: brows and cheeks must not tear the lids off the eye. [N]."""
    distances = [length(p.positions - on_side(EYE_CENTRE, sign)) for sign in SIDES.values()]
    return smoothstep(np.minimum(*distances), 1.40, 2.0)


def _lid_fields(template: HeadTemplate, p: Points, side: str) -> Fields:
    pouch = p.bump(on_side((3.4, 1.0, 6.2), SIDES[side]), (1.6, 0.8, 2)) * _off_lids(p)
    squint = lid_motion(template, side, upper=0.22, lower=0.40)
    return {
        "eyeBlink": close_lids(template, side),
        "eyeWide": lid_motion(template, side, upper=-0.42, lower=-0.16),
        "eyeSquint": squint + _soft_only(template, vectors(y=0.16 * pouch, z=0.10 * pouch)),
    }


def _brow_and_cheek_fields(template: HeadTemplate, p: Points, sign: float) -> Fields:
    off_lids = _off_lids(p)
    frown = p.bump(on_side((2.2, 3.9, 7), sign), (1.9, 0.95, 2.5)) * off_lids
    outer = p.bump(on_side((3.7, 4.1, 6), sign), (1.5, 1.1, 2.5)) * off_lids
    cheek = p.bump(on_side((3.5, 0.4, 6), sign), (1.6, 1.2, 2)) * off_lids
    above_mouth = ~template.below_mouth
    wing = p.bump(on_side((1.2, -0.7, 8), sign), (0.9, 1.1, 1.6)) * above_mouth
    lip = p.bump(on_side((1.2, -2.6, 7.6), sign), (1.0, 0.8, 1.6)) * above_mouth
    return {
        "browDown": vectors(-sign * 0.14 * frown, -0.42 * frown, 0.10 * frown),
        "browOuterUp": vectors(y=0.46 * outer, z=-0.05 * outer),
        "cheekSquint": vectors(y=0.28 * cheek, z=0.14 * cheek),
        "noseSneer": vectors(sign * 0.05 * wing, 0.26 * wing + 0.18 * lip, 0.03 * wing),
    }


def _mouth_corner_fields(p: Points, sign: float) -> Fields:
    corner = on_side(MOUTH_CORNER_POINT, sign)
    smile = p.bump(corner, (1.25, 1.0, 2.2))
    cheek = p.bump(on_side((3.5, -1.2, 5.9), sign), (1.5, 1.4, 2))
    fold = p.bump(on_side((2.9, -2.4, 6.6), sign), (0.8, 1.2, 1.5))
    frown = p.bump(corner, (1.2, 1.0, 2.2))
    dimple = p.bump(corner, (1.2, 0.9, 2.2))
    stretch = p.bump(corner, (1.5, 1.5, 2.4))
    return {
        "mouthSmile": vectors(
            sign * (0.62 * smile + 0.10 * cheek),
            0.52 * smile + 0.30 * cheek,
            -0.42 * smile + 0.22 * cheek - 0.05 * fold,
        ),
        "mouthFrown": vectors(sign * 0.10 * frown, -0.50 * frown, -0.08 * frown),
        "mouthDimple": vectors(sign * 0.38 * dimple, 0.08 * dimple, -0.35 * dimple),
        "mouthStretch": vectors(sign * 0.62 * stretch, -0.20 * stretch, -0.28 * stretch),
    }


def _lip_side_fields(template: HeadTemplate, p: Points, sign: float) -> Fields:
    below, off_seam = template.below_mouth, np.abs(template.row_y - MOUTH_LINE)
    half = smoothstep(sign * p.x, -0.5, 0.5)
    # The lips are raised and lowered most a little beside the middle.
    lip = bell(np.abs(p.x), 1.1, 1.3) * smoothstep(p.z, 4.5, 6.3) * half
    raised = lip * bell(p.y, -3.4, 0.85) * (~below & (np.abs(template.azimuth) < 24))
    lowered = lip * bell(p.y, -4.4, 0.95) * below
    press = _lip_band(template) * half
    inwards = np.where(below, 0.10, -0.08) * smoothstep(off_seam, 0, 0.3)
    shift = np.exp(-((p.x / 3.2) ** 2) - ((p.y + 3.9) / 1.5) ** 2) * smoothstep(p.z, 3.5, 6)
    return {
        "mouth": vectors(x=sign * 0.60 * shift),
        "mouthUpperUp": vectors(y=0.40 * raised, z=0.06 * raised),
        "mouthLowerDown": vectors(y=-0.42 * lowered, z=0.04 * lowered),
        "mouthPress": vectors(y=inwards * press, z=-0.14 * press),
    }


def _lip_fields(template: HeadTemplate, p: Points) -> Fields:
    below = template.below_mouth
    lips = _lip_band(template)
    upper, lower = lips * ~below, lips * below
    from_seam = template.row_y - MOUTH_LINE
    in_front = smoothstep(p.z, 5, 6.5)
    shrug_up = bell(p.x, 0, 2.4) * bell(p.y, -3.4, 0.9) * in_front * ~below
    depth = MOUTH_LINE - np.where(template.row_y > -49, template.row_y, p.y)
    shrug_low = bell(p.x, 0, 2.4) * bell(p.y, -4.9, 1.3) * in_front * below
    shrug_low = shrug_low * smoothstep(depth, -0.02, 0.30)
    # Shuts the lips of a jaw that is open by 0.35 rad.
    close = bell(p.y, -4.4, 1.2) * bell(p.x, 0, 2.6) * in_front * below
    return {
        "mouthRollUpper": vectors(
            y=-0.16 * upper * smoothstep(from_seam, 0, 0.35), z=-0.32 * upper
        ),
        "mouthRollLower": vectors(y=0.20 * lower * smoothstep(-from_seam, 0, 0.4), z=-0.34 * lower),
        "mouthShrugUpper": vectors(y=0.20 * shrug_up, z=0.16 * shrug_up),
        "mouthShrugLower": vectors(y=0.24 * shrug_low, z=0.20 * shrug_low),
        "mouthClose": vectors(y=1.9 * close, z=0.6 * close),
    }


def _central_fields(template: HeadTemplate, p: Points) -> Fields:
    inner_brow = p.twin_bump((1.1, 4.3, 7.2), (1.5, 1.3, 2.5)) * _off_lids(p)
    forehead = p.bump((0, 6.2, 7.5), (2.6, 1.6, 3))
    cheek = p.twin_bump((3.7, -3.0, 5.2), (1.7, 1.7, 2.2)) * (template.vertex_parts == "skin")
    puffed_lips = p.bump((0, -3.9, 7.5), (2.5, 1.0, 2))
    mouth = np.exp(-((np.abs(p.x) / 2.9) ** 2.5)) * bell(p.y, -3.9, 1.25) * smoothstep(p.z, 3.5, 6)
    funnel = np.where(template.below_mouth, -0.26, 0.24) * bell(p.x, 0, 1.9) * mouth
    nostril = p.twin_bump((1.0, -1.2, 8), (1.0, 0.7, 1.3))
    neck = bell(p.y, -11, 2.6) * smoothstep(p.z, -3, 1)
    return {
        "browInnerUp": vectors(y=0.50 * inner_brow + 0.16 * forehead),
        "cheekPuff": p.normals * (1.15 * cheek)[:, None] + vectors(z=0.15 * puffed_lips),
        "mouthPucker": vectors(
            -0.42 * p.x * mouth,
            -0.10 * (p.y - MOUTH_LINE) * mouth,
            0.62 * bell(p.x, 0, 2.0) * mouth,
        ),
        "mouthFunnel": vectors(-0.30 * p.x * mouth, funnel, 0.48 * bell(p.x, 0, 2.1) * mouth),
        "noseFlare": vectors(x=0.14 * np.sign(p.x) * nostril),
        "neckTense": vectors(x=0.07 * p.x * neck, z=0.12 * neck),
    }


def _tongue_field(template: HeadTemplate) -> np.ndarray:
    """The tongue stuck out over the lower lip; it needs a mouth that is open, as with `jawOpen`."""
    ids, field = template.tongue, np.zeros_like(template.vertices)
    num_segments = (len(ids) - 1) // (len(TONGUE) - 1)
    out, rest = (tongue_points(rings, num_segments) for rings in (TONGUE_OUT, TONGUE))
    field[ids] = out - rest
    return field


def _lip_band(template: HeadTemplate) -> np.ndarray:
    """Soft band along both lips, fading towards the corners. [V]."""
    towards_corner = np.abs(template.azimuth) / 21
    return np.maximum(1 - towards_corner**3, 0) * bell(template.row_y, MOUTH_LINE, 0.75)
