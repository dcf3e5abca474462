# SPDX-License-Identifier: Apache-2.0
"""Splats that grow where the skin below them stretches.

Eq. 5 of the paper moves splats and leaves their sizes. Between two that an open jaw pulls apart
lies a gap then, through which the mouth's inside is seen on the cheek.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.rotations import quat_to_matrix
from ..geometry.structures import TensorRecord

LARGEST = 4.0  # stretch of a splat; a face that turns inside out has no end
SLIVER = 1e-3  # squared sine of a face's corner below which its plane is not known


@dataclass(frozen=True)
class FaceAxes(TensorRecord):
    """The three axes of N splats, in terms of the faces that they ride on."""

    along: Tensor  # [N, 3, 2] of each axis, what it takes of the two edges at the first corner
    across: Tensor  # [N, 3] squared length of what is left: its part normal to the face


def lay_axes(quats: Tensor, corners: Tensor) -> FaceAxes:
    """The axes of splats on their faces at rest.

    Args:
        quats: Of the splats at rest. [N, 4]
        corners: The face of each at rest, metres; a sliver stretches nothing. [N, 3, 3]
    """
    first, second = (corners[:, k] - corners[:, 0] for k in (1, 2))
    axes = quat_to_matrix(quats).mT
    a, b = (torch.einsum("nak,nk->na", axes, edge) for edge in (first, second))
    g11, g12, g22 = _edge_products(corners)
    area = g11 * g22 - g12 * g12
    is_sliver = (area <= SLIVER * g11 * g22)[:, None]
    area = torch.where(is_sliver, 1.0, area[:, None])
    along = torch.stack(
        [g22[:, None] * a - g12[:, None] * b, g11[:, None] * b - g12[:, None] * a], -1
    )
    along = torch.where(is_sliver[..., None], 0.0, along / area[..., None])
    return FaceAxes(along, 1 - _squared_lengths(along, corners))


def stretch_axes(axes: FaceAxes, corners: Tensor) -> Tensor:
    """How much longer each axis is on the face as it is posed; never shorter. [..., N, 3] >= 1

    Args:
        axes: Of `lay_axes`.
        corners: The posed face of each splat, metres. [..., N, 3, 3]
    """
    squares = axes.across + _squared_lengths(axes.along, corners)
    return squares.clamp(1.0, LARGEST**2).sqrt()


def _squared_lengths(along: Tensor, corners: Tensor) -> Tensor:
    """Of mixtures of the edges. [..., N, 3]"""
    g11, g12, g22 = (product[..., None] for product in _edge_products(corners))
    u, v = along.unbind(-1)
    return g11 * u * u + 2 * g12 * u * v + g22 * v * v


def _edge_products(corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inner products of the edges at the first corner: 1 and 1, 1 and 2, 2 and 2. [...] each"""
    first, second = (corners[..., k, :] - corners[..., 0, :] for k in (1, 2))
    return (first * first).sum(-1), (first * second).sum(-1), (second * second).sum(-1)
