# SPDX-License-Identifier: Apache-2.0
"""Eyelids: folded away while an eye is open, they must be skin when it closes.

An open eye shows its upper lid as a dark line or not at all. Points of the lid that fall there
would carry that line, and the iris next to it, down over the eye in every blink.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.structures import CanonicalPoints
from ..rigs.binding import bind_points
from ..rigs.head_rig import HeadRig

BLINK = "eyeBlink"
LEAST_SHARE, LASHES = 0.2, 0.93  # of the widest way of a lid: beyond, its rim with the lashes


@torch.no_grad()
def find_lid_points(points: CanonicalPoints, rig: HeadRig, betas: Tensor) -> Tensor:
    """Points of skin that a blink draws over the eye, without the rims of the lids.

    Args:
        points: N canonical points.
        rig: Of the bindings; one whose expressions have no names has no lids that are known.
        betas: Of the identity. [1, S]

    Returns:
        [N]
    """
    names = rig.expression_names
    blinks = [index for index, name in enumerate(names) if name.startswith(BLINK)]
    found = torch.zeros(len(points), dtype=torch.bool)
    if not blinks:
        return found
    bound = bind_points(points, rig, rig.canonical_vertices(betas)[0])
    for index in blinks:
        way = bound.exprdirs[..., index].norm(dim=-1)
        widest = way.max()
        found |= (way > LEAST_SHARE * widest) & (way < LASHES * widest)
    return found
