# SPDX-License-Identifier: Apache-2.0
"""The identity space: named displacement fields, each one standard deviation at the value 1.

Centimetres; x points to the subject's left, y up, z out of the face. Most fields are functions of
position alone; eyeballs, ears and teeth then follow them rigidly, and lids stay with their eyeball.
"""

from __future__ import annotations

import numpy as np

from .anatomy_fields import Fields, anatomy_fields
from .ears import EAR_CENTRE
from .fields import SIDES, Points, bell, on_side, smoothstep, vectors
from .grid import MOUTH_LINE
from .lids import lid_motion
from .primitives import length
from .sculpt import EYE_CENTRE
from .template import HeadTemplate

BITE = np.array([0, -3.9, 6.6])  # where the teeth meet


def build_identity_fields(template: HeadTemplate) -> tuple[list[str], np.ndarray]:
    """Names and displacements of the identity fields, centimetres. [V, 3, S]."""
    # The mouth's inside faces the other way, teeth stay where they are.
    has_outside = np.isin(template.vertex_parts, ("skin", "lid"))
    outwards = template.normals * has_outside[:, None]
    # Both edges of the slit move alike, or the lips of some identities would gape.
    edges = np.stack([template.mouth_edges[lip] for lip in ("upper", "lower")])
    outwards[edges] = outwards[edges].mean(axis=0)
    fields = anatomy_fields(Points(template.vertices, outwards))
    anchors = np.stack(
        [on_side(at, sign) for at in (EYE_CENTRE, EAR_CENTRE) for sign in SIDES.values()] + [BITE]
    )
    at_anchors = anatomy_fields(Points(anchors, np.zeros_like(anchors)))
    fields = {
        name: _keep_organs_rigid(template, field, at_anchors[name])
        for name, field in fields.items()
    }
    fields |= _eye_fields(template) | _lip_fields(template) | _ear_fields(template)
    return list(fields), np.stack(list(fields.values()), axis=-1)


def _keep_organs_rigid(
    template: HeadTemplate, field: np.ndarray, at_anchors: np.ndarray
) -> np.ndarray:
    """The field with organs moving as their anchors do, teeth and tongue by half."""
    left_eye, right_eye, left_ear, right_ear, bite = at_anchors
    parts, rigid = template.vertex_parts, field.copy()
    for side, eye, ear in (("left", left_eye, left_ear), ("right", right_eye, right_ear)):
        distance = length(template.vertices - on_side(EYE_CENTRE, SIDES[side]))
        follow = 1 - smoothstep(distance, 1.42, 2.3)[:, None]
        rigid = rigid * (1 - follow) + eye * follow
        rigid[parts == f"ear_{side}"] = ear
    in_mouth = np.isin(parts, ("teeth_upper", "teeth_lower", "tongue"))
    rigid[in_mouth] = (field[in_mouth] + bite) / 2
    return rigid


def _eye_fields(template: HeadTemplate) -> Fields:
    size, tilt = np.zeros_like(template.vertices), np.zeros_like(template.vertices)
    for side, sign in SIDES.items():
        offsets = template.vertices - on_side(EYE_CENTRE, sign)
        distance = length(offsets)
        size += offsets * (0.09 * (1 - smoothstep(distance, 1.4, 2.6)))[:, None]
        turn = 0.10 * sign * (1 - smoothstep(distance, 1.45, 2.6))
        turn[template.vertex_parts == f"eye_{side}"] = 0
        tilt += vectors(x=-turn * offsets[:, 1], y=turn * offsets[:, 0])
    openness = sum(lid_motion(template, side, upper=-0.08, lower=-0.04) for side in SIDES)
    return {"eye_size": size, "eye_tilt": tilt, "eye_openness": openness}


def _lip_fields(template: HeadTemplate) -> Fields:
    towards_corner = np.abs(template.azimuth) / 21
    middle = np.maximum(1 - towards_corner**3, 0)
    # Full lips stay shut.
    off_seam = smoothstep(np.abs(template.row_y - MOUTH_LINE), 0, 0.3)
    fields = {}
    for lip, fullest, border, lift, on_lip in (
        ("upper", 0.38, 0.60, 0.12, ~template.below_mouth),
        ("lower", -0.48, -0.78, -0.12, template.below_mouth),
    ):
        forwards = 0.16 * bell(template.row_y, MOUTH_LINE + fullest, 0.38) * off_seam
        upwards = lift * bell(template.row_y, MOUTH_LINE + border, 0.4) * off_seam
        field = vectors(y=upwards, z=forwards) * (middle * on_lip)[:, None]
        fields[f"{lip}_lip_fullness"] = field
    return fields


def _ear_fields(template: HeadTemplate) -> Fields:
    names = ("ear_size", "ear_protrusion", "ear_height", "ear_lobe")
    fields = {name: np.zeros_like(template.vertices) for name in names}
    for side, sign in SIDES.items():
        ids = np.flatnonzero(template.vertex_parts == f"ear_{side}")
        offsets = template.vertices[ids] - on_side(EAR_CENTRE, sign)
        behind = -offsets[:, 2]
        away = sign * 0.22 * np.clip(behind + 0.6, 0, 3)
        fields["ear_size"][ids] = 0.10 * offsets
        fields["ear_protrusion"][ids] = vectors(x=away, z=0.05 * np.clip(behind, 0, 3))
        fields["ear_height"][ids] = (0, 0.3, 0)
        fields["ear_lobe"][ids] = vectors(y=-0.3 * smoothstep(-offsets[:, 1], 1.2, 2.8))
    return fields
