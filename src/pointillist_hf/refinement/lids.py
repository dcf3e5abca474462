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
# Of the widest way that a blink moves anything: lids go farther than the first; what goes farther
# than the second is too near to lend colours.
LID, NEAR = 0.2, 0.08


@torch.no_grad()
def measure_blink(points: CanonicalPoints, rig: HeadRig, betas: Tensor) -> Tensor:
    """How far a blink moves each point, over how far it moves the farthest. [N] in [0, 1]

    Args:
        points: N canonical points.
        rig: Of the bindings; one whose expressions have no names has no lids that are known.
        betas: Of the identity. [1, S]
    """
    blinks = [i for i, name in enumerate(rig.expression_names) if name.startswith(BLINK)]
    share = points.means.new_zeros(len(points))
    if not blinks:
        return share
    bound = bind_points(points, rig, rig.canonical_vertices(betas)[0])
    for index in blinks:
        way = bound.exprdirs[..., index].norm(dim=-1)
        share = torch.maximum(share, way / way.max().clamp_min(1e-6))
    return share


def is_folded(blink: Tensor, is_rim: Tensor) -> Tensor:
    """Points that a blink draws over the eye, without the rims of the lids and their lashes. [N]

    Args:
        blink: Of `measure_blink`. [N]
        is_rim: Which lie on `FaceKinds.is_lid`. Near its corners a rim hardly moves. [N]
    """
    return (blink > LID) & ~is_rim
