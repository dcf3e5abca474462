# SPDX-License-Identifier: Apache-2.0
"""Pose correctives: what flesh does that linear blend skinning does not.

Centimetres; x points to the subject's left, y up, z out of the face. All are linear in the pose
features, rotation minus identity of every joint but the root, as FLAME's are.
"""

from __future__ import annotations

import numpy as np

from .fields import SIDES, Points, bell, smoothstep, vectors
from .lids import lid_motion
from .template import HeadTemplate
from .weights import JOINT_NAMES, JOINTS

# Elements (row, column) of a rotation matrix that are plus and minus the sine of a turn about an
# axis: about x it nods down, about y it turns to the subject's left, about z it tilts to the right.
SINE_ELEMENTS = {"x": ((2, 1), (1, 2)), "y": ((0, 2), (2, 0)), "z": ((1, 0), (0, 1))}
# Fractions of the opening by which the lids follow a gaze that is lowered by one radian.
UPPER_LID_FOLLOWS, LOWER_LID_FOLLOWS = 0.50, -0.30


def build_pose_correctives(
    template: HeadTemplate, skin_weights: np.ndarray, jaw_weights: np.ndarray
) -> np.ndarray:
    """Displacement per pose feature, centimetres. [V, 3, 36].

    Args:
        template: The neutral head.
        skin_weights: From `weights.build_skin_weights`. [V, 5].
        jaw_weights: From `weights.build_jaw_weights`. [V].
    """
    num_vertices = len(template.vertices)
    correctives = np.zeros((num_vertices, 3, len(JOINTS) - 1, 3, 3))
    for joint, weights in (("neck", 1 - skin_weights[:, 0]), ("jaw", jaw_weights)):
        correctives[:, :, _index(joint)] += keep_volume(template.vertices, joint, weights)
    p = Points(template.vertices, template.normals)
    is_soft = np.isin(template.vertex_parts, ("skin", "lid", "mouth"))
    turns = {("jaw", "x"): _jaw_field(template, p)}
    turns |= {("neck", axis): field for axis, field in _neck_fields(p).items()}
    turns |= {(f"{side}_eye", "x"): _lid_field(template, side) for side in SIDES}
    for (joint, axis), field in turns.items():
        plus, minus = SINE_ELEMENTS[axis]
        at_joint = correctives[:, :, _index(joint)]
        at_joint[:, :, *plus] += 0.5 * field * is_soft[:, None]
        at_joint[:, :, *minus] -= 0.5 * field * is_soft[:, None]
    return correctives.reshape(num_vertices, 3, -1)


def keep_volume(points: np.ndarray, joint: str, weights: np.ndarray) -> np.ndarray:
    """Undoes the shrinking of what follows a joint by half. [V, 3, 3, 3].

    A point of weight w should turn by w times the angle a, but skinning draws it along the chord.
    To second order in a they differ by -w (1 - w) S p, where p is the point seen from the joint
    and S the symmetric part of the rotation minus identity: linear in the pose features.
    """
    offsets = points - JOINTS[JOINT_NAMES.index(joint)]
    along = (weights * (1 - weights))[:, None] * offsets
    # S has half of each element on either side of the diagonal.
    eye = np.eye(3)
    return -0.5 * (np.einsum("vb,ia->viab", along, eye) + np.einsum("va,ib->viab", along, eye))


def _jaw_field(template: HeadTemplate, p: Points) -> np.ndarray:
    """An open jaw draws in cheeks and lip corners and pushes back the throat. [V, 3]."""
    cheek = p.twin_bump((4.3, -2.6, 3.6), (1.7, 2.2, 2.6))
    corner = p.twin_bump((2.5, -3.95, 6.7), (1.1, 1.0, 1.8))
    throat = p.bump((0, -8.4, 3.2), (3.4, 1.4, 2.2))
    larynx = p.bump((0, -9.9, 2.2), (2.8, 1.3, 2.2))
    on_skin = template.vertex_parts == "skin"
    return -0.7 * p.normals * (cheek * on_skin)[:, None] + vectors(
        x=-0.9 * p.sideways * corner, y=-0.9 * throat, z=-0.25 * corner - 0.9 * larynx
    )


def _neck_fields(p: Points) -> dict[str, np.ndarray]:
    """Flesh folds where the neck bends and tendons rise where it turns. [V, 3] by axis."""
    throat = p.bump((0, -9.2, 2.2), (3.4, 1.6, 2.4))
    nape = p.bump((0, -7.5, -8.0), (4.2, 2.8, 3.2))
    tendon = bell(p.y, -10.2, 3.2) * bell(np.abs(p.x), 2.6 - 0.22 * (p.y + 10.2), 1.1)
    tendon = tendon * smoothstep(p.z, -3.5, -0.5)
    flank = bell(p.y, -10.0, 3.2) * smoothstep(np.abs(p.x), 1.5, 4.0)
    return {
        "x": vectors(y=-0.5 * throat, z=1.1 * throat + 0.6 * nape),
        "y": -0.55 * p.normals * (p.sideways * tendon)[:, None],
        "z": -0.5 * p.normals * (p.sideways * flank)[:, None],
    }


def _lid_field(template: HeadTemplate, side: str) -> np.ndarray:
    """The lids follow the gaze up and down. [V, 3]."""
    return lid_motion(template, side, upper=UPPER_LID_FOLLOWS, lower=LOWER_LID_FOLLOWS)


def _index(joint: str) -> int:
    """Place of a joint among the pose features, where the root has none."""
    return JOINT_NAMES.index(joint) - 1
