# SPDX-License-Identifier: Apache-2.0
"""Identity fields that depend on position alone, by region of the head.

Centimetres; x points to the subject's left, y up, z out of the face. Every field is a
displacement at the value 1, which is one standard deviation.
"""

from __future__ import annotations

import numpy as np

from .fields import Points, bell, smoothstep, vectors

Fields = dict[str, np.ndarray]


def anatomy_fields(p: Points) -> Fields:
    """All fields that depend on position alone. [N, 3] each."""
    return (
        _cranium_fields(p)
        | _jaw_fields(p)
        | _orbit_fields(p)
        | _nose_fields(p)
        | _mouth_fields(p)
        | _soft_tissue_fields(p)
        | _body_fields(p)
        | _asymmetry_fields(p)
    )


def _cranium_fields(p: Points) -> Fields:
    head = smoothstep(p.y, -13, -7)
    below_eyes = (np.maximum(p.y, -8) - 2.5) * 0.05
    length_change = np.where(p.y < 2.5, below_eyes, (p.y - 2.5) * 0.02)
    return {
        "head_size": (p.positions - (0, -8, -2.5)) * 0.035 * head[:, None],
        "head_width": vectors(x=0.035 * p.x * head),
        "cranium_width": vectors(x=0.05 * p.x * smoothstep(p.y, 1, 6)),
        "cranium_height": vectors(y=0.5 * smoothstep(p.y, 5, 12)),
        "head_depth": vectors(z=0.06 * np.minimum(p.z + 1, 0) * smoothstep(p.y, -6, 0)),
        "occiput": vectors(z=-0.5 * p.twin_bump((0, 1.5, -10), (5, 3, 4))),
        "face_length": vectors(y=length_change * smoothstep(p.y, -14, -8) * smoothstep(p.z, -5, 3)),
        "face_width": vectors(x=0.05 * p.x * bell(p.y, 0.2, 3.2) * smoothstep(p.z, -4, 2)),
        "forehead_slope": vectors(z=-0.55 * smoothstep(p.y, 5, 10) * smoothstep(p.z, 0, 6)),
        "forehead_bulge": vectors(z=0.35 * p.twin_bump((0, 7.2, 7), (5, 2.2, 4))),
        "temple": vectors(x=0.28 * p.sideways * p.twin_bump((6.7, 4.2, 3.2), (1.6, 2.2, 2.5))),
    }


def _jaw_fields(p: Points) -> Fields:
    angle = p.twin_bump((4.6, -4.7, 0.7), (2, 2, 2.5))
    below_lips = smoothstep(-p.y, 4.3, 6.4) * smoothstep(p.y, -11, -8) * smoothstep(p.z, 1, 5)
    return {
        "jaw_width": vectors(x=0.085 * p.x * bell(p.y, -5.0, 2.4) * smoothstep(p.z, -4, 0.5)),
        "gonial_angle": vectors(x=0.15 * p.sideways * angle, y=-0.5 * angle),
        "chin_protrusion": vectors(z=0.45 * p.twin_bump((0, -6.6, 7), (2.4, 1.7, 3))),
        "chin_height": vectors(y=-0.45 * below_lips),
        "chin_width": vectors(x=0.16 * p.x * p.twin_bump((0, -6.5, 6.5), (2.6, 1.5, 2.5))),
    }


def _orbit_fields(p: Points) -> Fields:
    spacing = p.twin_bump((3.2, 2.5, 6), (1.9, 1.7, 3))
    return {
        "brow_ridge": vectors(z=0.32 * p.twin_bump((2, 4.1, 7), (3, 0.8, 2.5))),
        "brow_height": vectors(y=0.28 * p.twin_bump((2.5, 4.1, 6.5), (2.6, 1.0, 3))),
        "eye_spacing": vectors(x=0.17 * p.sideways * spacing),
        "eye_depth": vectors(z=-0.22 * p.twin_bump((3.1, 2.5, 6), (1.8, 1.5, 3))),
        "eye_height": vectors(y=0.2 * p.twin_bump((3.1, 2.6, 6), (2.4, 1.6, 3))),
    }


def _nose_fields(p: Points) -> Fields:
    nose = smoothstep(2.6 - p.y, 0, 3.2) * bell(p.x, 0, 1.7)
    nose = nose * smoothstep(p.z, 6.2, 7.6) * smoothstep(p.y, -2.9, -1.7)
    width = p.twin_bump((0, -1, 8.2), (1.9, 1.1, 2))
    bridge_width = p.twin_bump((0, 1.4, 7.6), (1.2, 1.8, 1.6))
    nostril = p.twin_bump((1.2, -1.1, 8), (0.8, 0.6, 0.9))
    return {
        "nose_length": vectors(y=-0.32 * nose),
        "nose_width": vectors(x=0.17 * p.x * width),
        "nose_protrusion": vectors(z=0.42 * p.twin_bump((0, -0.6, 9), (1.15, 1.3, 1.6))),
        "nose_bridge_height": vectors(z=0.26 * p.twin_bump((0, 2.0, 7.8), (1.0, 1.8, 1.8))),
        "nose_bridge_width": vectors(x=0.28 * p.x * bridge_width),
        "nose_tip_up": vectors(y=0.30 * p.twin_bump((0, -0.7, 9.3), (1.1, 0.9, 1.3))),
        "nose_hump": vectors(z=0.24 * p.twin_bump((0, 0.9, 8.4), (0.8, 0.8, 1.2))),
        "nostril_flare": vectors(x=0.17 * p.sideways * nostril, y=0.05 * nostril),
    }


def _mouth_fields(p: Points) -> Fields:
    in_front = smoothstep(p.z, 0.5, 5)
    height = bell(p.y, -3.9, 1.4) * bell(p.x, 0, 3.2) * in_front
    return {
        "mouth_width": vectors(x=0.085 * p.x * p.twin_bump((0, -3.9, 7), (3, 1.0, 2.5))),
        "mouth_height": vectors(y=0.25 * height),
        "mouth_protrusion": vectors(z=0.3 * bell(p.y, -3.8, 1.7) * bell(p.x, 0, 2.7) * in_front),
        "mouth_corners": vectors(y=0.13 * p.twin_bump((2.4, -3.9, 6.5), (0.9, 0.7, 1.5))),
    }


def _soft_tissue_fields(p: Points) -> Fields:
    cheekbone = 0.32 * p.twin_bump((4.5, 0.5, 4.6), (1.6, 1.2, 2))
    cheek = 0.45 * p.twin_bump((3.8, -2.4, 4.8), (2, 2.1, 2.6))
    jowl = 0.38 * p.twin_bump((3.2, -5.6, 4.5), (1.8, 1.5, 2.6))
    return {
        "cheekbone": p.normals * cheekbone[:, None],
        "cheek_fullness": p.normals * cheek[:, None],
        "jowl": p.normals * jowl[:, None],
        "double_chin": vectors(
            y=-0.38 * p.twin_bump((0, -8, 3.6), (2.8, 1.0, 2.4)),
            z=0.3 * p.twin_bump((0, -8.8, 2.8), (2.6, 1.4, 2.0)),
        ),
    }


def _body_fields(p: Points) -> Fields:
    below_chin = p.y < -5
    return {
        "neck_width": vectors(
            x=0.09 * p.x * bell(p.y, -10.5, 3.6) * below_chin,
            z=0.06 * (p.z + 3) * bell(p.y, -10.5, 3.2) * below_chin,
        ),
        "neck_length": vectors(y=-0.55 * smoothstep(-p.y, 8.3, 13)),
        "shoulder_width": vectors(x=0.06 * p.x * smoothstep(-p.y, 12, 17)),
        "shoulder_slope": vectors(y=-0.08 * np.abs(p.x) * smoothstep(-p.y, 11, 16)),
    }


def _asymmetry_fields(p: Points) -> Fields:
    nose = bell(p.x, 0, 1.6) * bell(p.y, -0.2, 1.8) * smoothstep(p.z, 6.5, 8)
    jaw = smoothstep(-p.y, 2, 7) * smoothstep(p.y, -11, -8) * smoothstep(p.z, 0, 4)
    return {
        "asym_nose": vectors(x=0.13 * nose),
        "asym_jaw": vectors(x=0.2 * jaw),
        "asym_face": vectors(y=0.10 * np.tanh(p.x / 2) * bell(p.y, 1, 5) * smoothstep(p.z, 0, 4)),
    }
