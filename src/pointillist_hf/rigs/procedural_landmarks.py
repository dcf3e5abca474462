# SPDX-License-Identifier: Apache-2.0
"""Where MediaPipe's landmarks lie on the procedural heads: a table, made on synthetic people."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from .landmark_places import SLIDER_RANGE, LandmarkPlaces, find_pupils, landmark_weights
from .procedural_rig import ProceduralHeadRig

TABLE_PATH = Path(__file__).parent / "procedural" / "landmark_places.json"
# The table holds whole numbers: thousandths of barycentric coordinates, tenths of millimetres.
TABLE_SCALE, OFFSET_SCALE = 1e-3, 1e-4

# The jaw from ear to ear. The detector puts these on the outline of the face wherever it is, so
# they say how wide the face looks and not which point of the skin is meant.
OUTLINE = (
    454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234,
)  # fmt: skip
# Parts of the procedural head that no landmark of the face sees, or that hair hides.
UNSEEN_SHAPES = ("neck", "shoulder", "ear_", "occiput", "cranium", "double")
UNSEEN_SHAPE_PRIOR = 7.0
# Expressions that landmarks take for something else.
UNSEEN_EXPRESSIONS = ("noseFlare", "neckTense", "cheekPuff", "tongueOut", "mouthClose")
UNSEEN_EXPRESSION_PRIOR = 45.0
NO_OUTLINE = (
    "mouth_interior", "eye_left", "eye_right", "teeth_upper", "teeth_lower", "tongue",
    "ear_left", "ear_right", "eyelids", "neck", "shoulders", "scalp",
)  # fmt: skip
OUTLINE_BOX = ((-0.095, 0.03), -0.03)  # lowest and highest y, lowest z; metres


def has_table(rig: ProceduralHeadRig) -> bool:
    """Whether the table knows the rig's mesh; an earlier sculpt may have had another one."""
    rows = read_table().get(rig.config.resolution)
    return rows is not None and rows["num_faces"] == rig.num_faces


@lru_cache
def read_table() -> dict[str, dict]:
    """Places on the procedural heads by resolution."""
    return json.loads(TABLE_PATH.read_text("utf-8"))


def places_from_table(rig: ProceduralHeadRig) -> LandmarkPlaces:
    """386 landmarks: forehead and sides of the face are left out, where hair may be."""
    rows, like = read_table()[rig.config.resolution], rig.v_template
    ids, faces = (rig.faces.new_tensor(rows[name]) for name in ("ids", "faces"))
    first, second = (like.new_tensor(rows[name]) * TABLE_SCALE for name in ("first", "second"))
    return LandmarkPlaces(
        ids=ids,
        faces=faces,
        barycentric=torch.stack([first, second, 1 - first - second], dim=-1),
        weights=landmark_weights(ids).to(like),
        offsets=OFFSET_SCALE * like.new_tensor(rows["offsets"]).reshape(-1, 3),
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


def _priors(
    rig: ProceduralHeadRig, names: tuple[str, ...], unseen: tuple[str, ...], strength: float
) -> Tensor:
    return rig.v_template.new_tensor(
        [strength if name.startswith(unseen) else 1.0 for name in names]
    )
