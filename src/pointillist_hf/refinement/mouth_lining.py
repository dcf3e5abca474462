# SPDX-License-Identifier: Apache-2.0
"""The inside of a mouth, of which a portrait says little: dark, and seen when the jaw opens."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.structures import CanonicalPoints, Gaussians
from .face_kinds import FaceKinds, PointKind
from .neighbors import nearest_points

BEHIND_SKIN = 0.012  # metres behind lips and cheeks from which the mouth's inside is opaque
LINING_OPACITY, LINING_SIZE = 0.95, 1.7e-3  # metres: larger splats would reach the lips


@torch.no_grad()
def line_mouth(
    gaussians: Gaussians, points: CanonicalPoints, kinds: Tensor, face_kinds: FaceKinds
) -> Gaussians:
    """The mouth with an inside: without it, an open mouth shows the back of the head.

    A portrait with closed lips says nothing of it, and what lies near the lips would shine through
    them. So only what lies deep is made opaque.

    Args:
        gaussians: N of them.
        points: Their places and faces.
        kinds: `PointKind` of each. [N]
        face_kinds: Of the rig.
    """
    inside = (kinds == PointKind.MOUTH).nonzero()[:, 0]
    outside = (kinds == PointKind.SKIN) & ~face_kinds.is_ear[points.bindings]
    if not len(inside) or not outside.any():
        return gaussians
    distances, _ = nearest_points(points.means[inside], points.means[outside], 1)
    deep = inside[distances[:, 0] > BEHIND_SKIN]
    opacities, scales = gaussians.opacities.clone(), gaussians.scales.clone()
    opacities[deep] = LINING_OPACITY
    scales[deep] = scales[deep].clamp(max=LINING_SIZE)
    return replace(gaussians, opacities=opacities, scales=scales)
