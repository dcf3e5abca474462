# SPDX-License-Identifier: Apache-2.0
"""Lays a cloud onto the head it is meant for, by the faces its points are bound to.

A generator sees the tracked head through a few tokens and may draw a cloud of nearly the mean
shape. Its bindings tell which shape that is, so the difference to the tracked one can be made up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.structures import CanonicalPoints
from .binding import check_bindings
from .head_rig import HeadRig

# Points further from their face are hair: they are moved along, but say nothing about the shape.
MAX_DISTANCE = 0.02  # metres
# How far points on the skin lie from the middle of their face, metres: the noise of the fit, and
# the scale of Cauchy's weights against outliers.
NOISE, OUTLIER_SCALE = 0.01, 0.004
NUM_ROUNDS = 3  # of reweighting


def fit_betas(points: CanonicalPoints, rig: HeadRig) -> Tensor:
    """The identity whose head a cloud lies on: maximum a posteriori, betas being standard normal.

    Args:
        points: N points in the canonical space of an identity.
        rig: The rig whose faces they are bound to.

    Returns:
        Zeros if no point is near its face. [S]
    """
    check_bindings(points.bindings, rig.num_faces)
    corners = rig.faces[points.bindings]
    offsets = points.means - rig.v_template[corners].mean(1)
    is_near = offsets.norm(dim=-1) < MAX_DISTANCE
    wanted = offsets[is_near].flatten().double()
    directions = rig.shapedirs[corners[is_near]].mean(1).flatten(0, 1).double()  # [3 N', S]
    prior = NOISE**2 * torch.eye(rig.num_betas).to(directions)
    weights, betas = torch.ones_like(wanted), directions.new_zeros(rig.num_betas)
    for _ in range(NUM_ROUNDS):
        weighted = directions * weights[:, None]
        betas = torch.linalg.solve(weighted.T @ directions + prior, weighted.T @ wanted)
        weights = 1 / (1 + ((directions @ betas - wanted) / OUTLIER_SCALE).square())
    return betas.to(points.means)


def align_to_shape(points: CanonicalPoints, rig: HeadRig, betas: Tensor) -> CanonicalPoints:
    """The cloud with its own shape exchanged for another one; every point follows its face.

    Args:
        points: N points in canonical space.
        rig: The rig whose faces they are bound to.
        betas: The identity to lay them on. [S]
    """
    return move_to_shape(points, rig, betas.to(points.means) - fit_betas(points, rig))


def move_to_shape(points: CanonicalPoints, rig: HeadRig, change: Tensor) -> CanonicalPoints:
    """The cloud when every point follows its face through a change of the identity.

    Args:
        points: N points in canonical space.
        rig: The rig whose faces they are bound to.
        change: Of the identity coefficients. [S]
    """
    shift = torch.einsum("nkcs,s->nc", rig.shapedirs[rig.faces[points.bindings]], change) / 3
    return CanonicalPoints(points.means + shift, points.bindings)
