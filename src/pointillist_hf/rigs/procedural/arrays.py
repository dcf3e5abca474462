# SPDX-License-Identifier: Apache-2.0
"""The procedural head as the arrays of a FLAME-style linear rig.

Metres; x points to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .correctives import build_pose_correctives
from .expressions import build_expression_fields
from .grid import Resolution
from .identity import build_identity_fields
from .regions import build_landmarks, build_masks
from .template import build_template
from .weights import PARENTS, build_jaw_weights, build_joint_regressor, build_skin_weights

METRES = 0.01  # per centimetre


@dataclass(frozen=True)
class HeadArrays:
    """A linear head rig: numbers in float32, ids in int64."""

    v_template: np.ndarray  # [V, 3], metres
    faces: np.ndarray  # [F, 3], counter-clockwise seen from outside
    shapedirs: np.ndarray  # [V, 3, S], metres
    exprdirs: np.ndarray  # [V, 3, E], metres
    posedirs: np.ndarray  # [V, 3, 36], metres
    J_regressor: np.ndarray  # [5, V], rows sum to one
    lbs_weights: np.ndarray  # [V, 5], rows sum to one
    parents: np.ndarray  # [5], -1 for the root
    landmark_faces: np.ndarray  # [68], iBUG order
    landmark_barycentric: np.ndarray  # [68, 3]
    shape_names: list[str]  # [S]
    expression_names: list[str]  # [E], ARKit's
    masks: dict[str, np.ndarray]  # vertex ids by region


def build_head_arrays(resolution: Resolution = "full") -> HeadArrays:
    """The whole rig at the chosen resolution; always the same, bit by bit.

    Example:
        >>> build_head_arrays("low").shapedirs.shape
        (1932, 3, 53)
    """
    template = build_template(resolution)
    shape_names, shapedirs = build_identity_fields(template)
    jaw_weights, skin_weights = build_jaw_weights(template), build_skin_weights(template)
    expression_names, exprdirs = build_expression_fields(template, jaw_weights)
    posedirs = build_pose_correctives(template, skin_weights, jaw_weights)
    landmark_faces, landmark_barycentric = build_landmarks(template)
    return HeadArrays(
        v_template=_float(METRES * template.vertices),
        faces=template.faces,
        shapedirs=_float(METRES * shapedirs),
        exprdirs=_float(METRES * exprdirs),
        posedirs=_float(METRES * posedirs),
        J_regressor=_float(build_joint_regressor(template)),
        lbs_weights=_float(skin_weights),
        parents=np.array(PARENTS, np.int64),
        landmark_faces=landmark_faces,
        landmark_barycentric=_float(landmark_barycentric),
        shape_names=shape_names,
        expression_names=expression_names,
        masks=build_masks(template),
    )


def _float(array: np.ndarray) -> np.ndarray:
    """The array in single precision."""
    return array.astype(np.float32)
