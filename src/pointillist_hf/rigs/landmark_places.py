# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's 468 face landmarks, and the record of where some of them lie on a rig.

"left" and "right" are the subject's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.structures import TensorRecord, check_shape
from .head_rig import HeadRig

NUM_LANDMARKS = 468
OUTER_CANTHI = (33, 263)  # right, left
# Corners of eyes and mouth, nose tip, chin: they are seen best and mean most.
KEY_LANDMARKS = (*OUTER_CANTHI, 133, 362, 61, 291, 78, 308, 1, 4, 152)
KEY_WEIGHT = 1.6
LEFT_EYE, RIGHT_EYE = 3, 4  # joints
# Sliders run from 0 to 1 and may be overdone a little; components are standard deviations.
SLIDER_RANGE, COMPONENT_RANGE = (-0.15, 1.15), (-3.0, 3.0)


@dataclass(frozen=True)
class LandmarkPlaces(TensorRecord):
    """K landmarks with a place on the rig, and O that are only known to lie on its outline."""

    ids: Tensor  # [K] which of the 468
    faces: Tensor  # [K] face of the rig
    barycentric: Tensor  # [K, 3]
    weights: Tensor  # [K] 1 is usual
    # The detector does not put every landmark where it belongs: what it does on average.
    offsets: Tensor  # [K, 3] metres, in the space of the head
    outline_ids: Tensor  # [O] which of the 468
    outline_vertices: Tensor  # [C] vertices that can be on the outline
    pupils: Tensor  # [2] vertices: left, right
    # How firmly each coefficient is held at zero when landmarks are fitted; 1 is usual.
    shape_priors: Tensor  # [S]
    expression_priors: Tensor  # [E]
    expression_range: tuple[float, float]  # the smallest and the largest sensible coefficient

    def __post_init__(self) -> None:
        count = len(self.ids)
        check_shape("ids", self.ids, (None,))
        check_shape("faces", self.faces, (count,))
        check_shape("barycentric", self.barycentric, (count, 3))
        check_shape("weights", self.weights, (count,))
        check_shape("offsets", self.offsets, (count, 3))
        check_shape("outline_ids", self.outline_ids, (None,))
        check_shape("outline_vertices", self.outline_vertices, (None,))
        check_shape("pupils", self.pupils, (2,))
        check_shape("shape_priors", self.shape_priors, (None,))
        check_shape("expression_priors", self.expression_priors, (None,))


def landmark_weights(ids: Tensor) -> Tensor:
    """How much each landmark counts. [K] -> [K]"""
    is_key = torch.isin(ids, ids.new_tensor(KEY_LANDMARKS))
    return torch.where(is_key, KEY_WEIGHT, 1.0)


def find_pupils(rig: HeadRig) -> Tensor:
    """The foremost vertex of the left and of the right eyeball. [2]"""
    heights = []
    for joint in (LEFT_EYE, RIGHT_EYE):
        weights = rig.lbs_weights[:, joint]
        is_eye = weights > 0.5 * weights.max()
        heights.append(rig.v_template[:, 2].masked_fill(~is_eye, -torch.inf))
    return torch.stack(heights).argmax(1)
