# SPDX-License-Identifier: Apache-2.0
"""Splats in the axes of programs whose y points down."""

from __future__ import annotations

from dataclasses import replace

from ..geometry.rotations import quat_multiply
from ..geometry.structures import Gaussians


def turn_y_down(gaussians: Gaussians) -> Gaussians:
    """The same splats, turned half around x: y down, the face along -z.

    These are the axes of COLMAP, and so of the scenes most viewers were made for. A turn, no
    mirror: left stays left.
    """
    flip = gaussians.means.new_tensor([1.0, -1.0, -1.0])
    half_turn = gaussians.quats.new_tensor([0.0, 1.0, 0.0, 0.0]).expand_as(gaussians.quats)
    return replace(
        gaussians,
        means=gaussians.means * flip,
        quats=quat_multiply(half_turn, gaussians.quats),
    )
