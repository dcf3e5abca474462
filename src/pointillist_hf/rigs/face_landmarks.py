# SPDX-License-Identifier: Apache-2.0
"""Where MediaPipe's 468 face landmarks lie on a rig, and what they can say of its coefficients.

"left" and "right" are the subject's. Landmark ids are MediaPipe's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..geometry.structures import TensorRecord, check_shape
from .head_rig import HeadRig
from .procedural_rig import ProceduralHeadRig

NUM_LANDMARKS = 468
TABLE_PATH = Path(__file__).parent / "procedural" / "face_landmarks.json"
TABLE_SCALE = 1000  # barycentric coordinates are stored in thousandths

OUTER_CANTHI = (33, 263)  # right, left
# Corners of eyes and mouth, nose tip, chin: they are seen best and mean most.
KEY_LANDMARKS = (*OUTER_CANTHI, 133, 362, 61, 291, 78, 308, 1, 4, 152)
KEY_WEIGHT = 1.6
# The jaw from ear to ear. The detector puts these on the outline of the face wherever it is, so
# they say how wide the face looks and not which point of the skin is meant.
OUTLINE = (
    454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234,
)  # fmt: skip
# MediaPipe's counterparts of the 68 iBUG landmarks; the first 17 are the jaw.
IBUG = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
NUM_JAW_LANDMARKS = 17
JAW_BAND = 0.025  # metres around the jaw's landmarks in which the outline is looked for

LEFT_EYE, RIGHT_EYE = 3, 4  # joints
# Parts of the procedural head that no landmark of the face sees, or that hair hides.
UNSEEN_SHAPES = ("neck", "shoulder", "ear_", "occiput", "cranium", "double")
UNSEEN_SHAPE_PRIOR = 7.0
# Expressions that landmarks take for something else.
UNSEEN_EXPRESSIONS = ("noseFlare", "neckTense", "cheekPuff", "tongueOut", "mouthClose")
UNSEEN_EXPRESSION_PRIOR = 45.0
# Sliders run from 0 to 1 and may be overdone a little; components are standard deviations.
SLIDER_RANGE, COMPONENT_RANGE = (-0.15, 1.15), (-3.0, 3.0)
NO_OUTLINE = (
    "mouth_interior", "eye_left", "eye_right", "teeth_upper", "teeth_lower", "tongue",
    "ear_left", "ear_right", "eyelids", "neck", "shoulders", "scalp",
)  # fmt: skip
OUTLINE_BOX = ((-0.095, 0.03), -0.03)  # lowest and highest y, lowest z; metres


@dataclass(frozen=True)
class FaceLandmarks(TensorRecord):
    """K landmarks with a place on the rig, and O that are only known to lie on its outline."""

    ids: Tensor  # [K] which of the 468
    faces: Tensor  # [K] face of the rig
    barycentric: Tensor  # [K, 3]
    weights: Tensor  # [K] 1 is usual
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
        check_shape("outline_ids", self.outline_ids, (None,))
        check_shape("outline_vertices", self.outline_vertices, (None,))
        check_shape("pupils", self.pupils, (2,))
        check_shape("shape_priors", self.shape_priors, (None,))
        check_shape("expression_priors", self.expression_priors, (None,))


def find_face_landmarks(rig: HeadRig) -> FaceLandmarks:
    """The landmarks of a rig: from a table for the procedural heads, else through its own 68.

    Raises:
        ValueError: The rig has no landmarks of its own.

    Example:
        >>> len(find_face_landmarks(ProceduralHeadRig("low")).ids)
        386
    """
    resolution = getattr(rig.config, "resolution", None)
    if isinstance(rig, ProceduralHeadRig) and resolution in read_table():
        return _procedural_landmarks(rig, resolution)
    return landmarks_from_ibug(rig)


@lru_cache
def read_table() -> dict[str, dict[str, list[int]]]:
    """Places on the procedural heads by resolution."""
    return json.loads(TABLE_PATH.read_text())


def landmarks_from_ibug(rig: HeadRig) -> FaceLandmarks:
    """The 51 landmarks inside the face through the rig's 68; those of the jaw are its outline.

    Raises:
        ValueError: The rig has no landmarks of its own.
    """
    if len(rig.landmark_faces) != len(IBUG):
        raise ValueError(
            f"`rig` must have the {len(IBUG)} iBUG landmarks, and this {type(rig).__name__} has "
            f"{len(rig.landmark_faces)}. For FLAME pass `landmarks` to `from_flame`."
        )
    jaw = slice(0, NUM_JAW_LANDMARKS)
    inside = slice(NUM_JAW_LANDMARKS, None)
    ids = rig.faces.new_tensor(IBUG)
    jaw_points = rig.landmarks(rig.v_template[None])[0, jaw]
    distances = torch.cdist(rig.v_template, jaw_points).amin(1)
    return FaceLandmarks(
        ids=ids[inside],
        faces=rig.landmark_faces[inside],
        barycentric=rig.landmark_barycentric[inside],
        weights=_weights(ids[inside], rig),
        outline_ids=ids[jaw],
        outline_vertices=torch.nonzero(distances < JAW_BAND).flatten(),
        pupils=find_pupils(rig),
        shape_priors=rig.v_template.new_ones(rig.num_betas),
        expression_priors=rig.v_template.new_ones(rig.num_expressions),
        expression_range=COMPONENT_RANGE,
    )


def find_pupils(rig: HeadRig) -> Tensor:
    """The foremost vertex of the left and of the right eyeball. [2]"""
    heights = []
    for joint in (LEFT_EYE, RIGHT_EYE):
        weights = rig.lbs_weights[:, joint]
        is_eye = weights > 0.5 * weights.max()
        heights.append(rig.v_template[:, 2].masked_fill(~is_eye, -torch.inf))
    return torch.stack(heights).argmax(1)


def _procedural_landmarks(rig: ProceduralHeadRig, resolution: str) -> FaceLandmarks:
    rows = read_table()[resolution]
    like = rig.v_template
    ids, faces = (rig.faces.new_tensor(rows[name]) for name in ("ids", "faces"))
    first, second = (like.new_tensor(rows[name]) / TABLE_SCALE for name in ("first", "second"))
    return FaceLandmarks(
        ids=ids,
        faces=faces,
        barycentric=torch.stack([first, second, 1 - first - second], dim=-1),
        weights=_weights(ids, rig),
        outline_ids=rig.faces.new_tensor(OUTLINE),
        outline_vertices=_outline_vertices(rig),
        pupils=find_pupils(rig),
        shape_priors=_priors(rig, rig.shape_names, UNSEEN_SHAPES, UNSEEN_SHAPE_PRIOR),
        expression_priors=_priors(
            rig, rig.expression_names, UNSEEN_EXPRESSIONS, UNSEEN_EXPRESSION_PRIOR
        ),
        expression_range=SLIDER_RANGE,
    )


def _outline_vertices(rig: ProceduralHeadRig) -> Tensor:
    """Skin of cheeks, jaw and chin. [C]"""
    (lowest, highest), furthest_back = OUTLINE_BOX
    _, y, z = rig.v_template.unbind(1)
    is_outline = (y > lowest) & (y < highest) & (z > furthest_back)
    for name in NO_OUTLINE:
        is_outline[rig.mask(name)] = False
    return torch.nonzero(is_outline).flatten()


def _weights(ids: Tensor, rig: HeadRig) -> Tensor:
    is_key = torch.isin(ids, ids.new_tensor(KEY_LANDMARKS))
    return torch.where(is_key, KEY_WEIGHT, 1.0).to(rig.v_template)


def _priors(
    rig: HeadRig, names: tuple[str, ...], unseen: tuple[str, ...], strength: float
) -> Tensor:
    return rig.v_template.new_tensor(
        [strength if name.startswith(unseen) else 1.0 for name in names]
    )
