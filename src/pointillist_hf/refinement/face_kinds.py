# SPDX-License-Identifier: Apache-2.0
"""What the faces of a rig are made of, for rigs that name their regions and for those that do not.

Lengths are metres at rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from ..geometry.structures import TensorRecord
from ..rigs.head_rig import HeadRig

TEETH_FACES = 168  # that FLAME's reader puts behind FLAME's own


class PointKind(IntEnum):
    """What a point shows. Colours are never taken from points of another kind."""

    SKIN = 0
    HAIR = 1  # and the scalp below it
    CLOTH = 2
    EYE = 3
    TEETH = 4
    MOUTH = 5  # behind the lips, and the tongue


@dataclass(frozen=True)
class FaceKinds(TensorRecord):
    """What each face of a rig is."""

    kinds: Tensor  # [F] `PointKind`
    spacings: Tensor  # [F] between points that show it well, metres, at a scale of 1
    is_scalp: Tensor  # [F]
    is_ear: Tensor  # [F]
    is_lid: Tensor  # [F] the rims of the eyelids
    is_feature: Tensor  # [F] eyes, nose, mouth, ears: a millimetre shows there
    is_upper_teeth: Tensor  # [F]
    is_lower_teeth: Tensor  # [F] those that move with the jaw
    is_hidden: Tensor  # [F] the backs of the eyeballs: no view shows them
    is_anchor: Tensor  # [F] skin that hair may hang on: it neither opens with the jaw nor blinks
    is_hem: Tensor  # [F] where the body ends: large discs would fray its edge


# Where a point says little, points may be far apart.
SPACINGS = {
    "scalp": 10e-3,
    "neck": 5.5e-3,
    "shoulders": 7e-3,
    "mouth": 5e-3,
    "teeth": 2.0e-3,
    "ear": 3.5e-3,
}
SKIN_SPACING, FEATURE_SPACING = 3.4e-3, 2.2e-3
BROW_SPACING = 1.8e-3
FEATURES = ("eye_region", "eyelids", "lips", "nose")


def find_face_kinds(rig: HeadRig) -> FaceKinds:
    """The kinds of a rig's faces."""
    regions = _named_regions(rig) if hasattr(rig, "mask_names") else _guessed_regions(rig)

    def union(*names: str) -> Tensor:
        found = torch.zeros(rig.num_faces, dtype=torch.bool, device=rig.faces.device)
        for name in names:
            found |= regions.get(name, torch.zeros_like(found))
        return found

    eye, teeth = union("eye_left", "eye_right"), union("teeth_upper", "teeth_lower")
    mouth, ear = union("mouth_interior", "tongue"), union("ear_left", "ear_right")
    lid, neck = union("eyelids"), union("neck")
    own = eye | teeth | mouth
    scalp, cloth = union("scalp") & ~own & ~ear, union("clothes", "shoulders") & ~own
    kinds = torch.full((rig.num_faces,), int(PointKind.SKIN), device=rig.faces.device)
    spacings = torch.full((rig.num_faces,), SKIN_SPACING, device=rig.faces.device)
    for where, kind, spacing in (
        (union(*FEATURES) & ~own, PointKind.SKIN, FEATURE_SPACING),
        (union("eye_region", "brows") & ~own, PointKind.SKIN, BROW_SPACING),
        (neck & ~own, PointKind.SKIN, SPACINGS["neck"]),
        (scalp, PointKind.HAIR, SPACINGS["scalp"]),
        (cloth, PointKind.CLOTH, SPACINGS["shoulders"]),
        (ear & ~own, PointKind.SKIN, SPACINGS["ear"]),
        (eye, PointKind.EYE, FEATURE_SPACING),
        (teeth, PointKind.TEETH, SPACINGS["teeth"]),
        (mouth, PointKind.MOUTH, SPACINGS["mouth"]),
    ):
        kinds[where], spacings[where] = int(kind), spacing
    jaw = rig.lbs_weights[rig.faces][..., 2].amax(1)
    anchor = ~own & ~ear & ~lid & ~union("eye_region") & (jaw < 0.05)
    return FaceKinds(
        kinds=kinds,
        spacings=spacings,
        is_scalp=scalp,
        is_ear=ear,
        is_lid=lid,
        is_feature=union(*FEATURES) | own | ear,
        is_upper_teeth=teeth & (jaw < 0.5),
        is_lower_teeth=teeth & (jaw >= 0.5),
        is_hidden=_eye_backs(rig, eye),
        is_anchor=anchor,
        is_hem=_touch_open_edges(rig) & (cloth | neck),
    )


def _touch_open_edges(rig: HeadRig) -> Tensor:
    """Faces with a corner on an edge that no other face shares. [F]"""
    pairs = torch.cat([rig.faces[:, [0, 1]], rig.faces[:, [1, 2]], rig.faces[:, [2, 0]]])
    edges, counts = pairs.sort(1).values.unique(dim=0, return_counts=True)
    is_open = torch.zeros(len(rig.v_template), dtype=torch.bool, device=rig.faces.device)
    is_open[edges[counts == 1]] = True
    return is_open[rig.faces].any(1)


def _eye_backs(rig: HeadRig, eye: Tensor) -> Tensor:
    """Faces of the eyeballs behind their centres. [F]"""
    centres = rig.v_template[rig.faces].mean(1)
    backs = torch.zeros_like(eye)
    for side in (centres[:, 0] > 0, centres[:, 0] <= 0):
        ball = eye & side
        if ball.any():
            backs |= ball & (centres[:, 2] < centres[ball, 2].mean())
    return backs


def _named_regions(rig: HeadRig) -> dict[str, Tensor]:
    """Faces whose corners all lie in a region; of the thin lids, one corner is enough. [F] each"""
    regions = {}
    for name in rig.mask_names:
        inside = torch.zeros(len(rig.v_template), dtype=torch.bool, device=rig.faces.device)
        inside[rig.mask(name)] = True
        corners = inside[rig.faces]
        regions[name] = corners.any(1) if name == "eyelids" else corners.all(1)
    return regions


def _guessed_regions(rig: HeadRig) -> dict[str, Tensor]:
    """Regions of a rig without names, from its joints and its shape at rest. [F] each"""
    weights = rig.lbs_weights[rig.faces]
    centres = rig.v_template[rig.faces].mean(1)
    regions = {
        "eye_left": (weights[..., 3] > 0.5).all(1),
        "eye_right": (weights[..., 4] > 0.5).all(1),
    }
    if getattr(rig.config, "add_teeth", False):
        teeth = torch.arange(rig.num_faces, device=rig.faces.device)
        regions["teeth_upper"] = teeth >= rig.num_faces - TEETH_FACES
    eyes = regions["eye_left"] | regions["eye_right"]
    middle = centres[eyes].mean(0) if eyes.any() else rig.J_regressor[3] @ rig.v_template
    up, behind = centres[:, 1] - middle[1], middle[2] - centres[:, 2]
    regions["scalp"] = (up > 0.05) | ((behind > 0.09) & (up > -0.05))
    regions["neck"] = up < -0.11
    return {name: mask & ~eyes if name == "scalp" else mask for name, mask in regions.items()}
