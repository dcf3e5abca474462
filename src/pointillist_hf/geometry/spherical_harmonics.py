# SPDX-License-Identifier: Apache-2.0
"""Colours that depend on the direction of view: real spherical harmonics up to degree 3.

The basis, its signs and its order are those of 3D Gaussian Splatting's files: degree by degree,
the order m from -l to l, with the Condon-Shortley phase.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

MAX_DEGREE = 3
SH_C0 = math.sqrt(1 / (4 * math.pi))


def num_sh_coefficients(degree: int) -> int:
    """Coefficients of one colour channel."""
    return (degree + 1) ** 2


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Values of the basis functions.

    Args:
        directions: Unit vectors. [..., 3]
        degree: 0 to 3.

    Returns:
        [..., (degree + 1)^2]
    """
    x, y, z = directions.unbind(-1)
    pi = math.pi
    columns = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        c = math.sqrt(3 / (4 * pi))
        columns += [-c * y, c * z, -c * x]
    if degree >= 2:
        c, d = math.sqrt(15 / (4 * pi)), math.sqrt(5 / (16 * pi))
        columns += [c * x * y, -c * y * z, d * (3 * z * z - 1), -c * x * z, c / 2 * (x * x - y * y)]
    if degree >= 3:
        a, b = math.sqrt(35 / (32 * pi)), math.sqrt(105 / (4 * pi))
        c, d = math.sqrt(21 / (32 * pi)), math.sqrt(7 / (16 * pi))
        columns += [
            -a * y * (3 * x * x - y * y),
            b * x * y * z,
            -c * y * (5 * z * z - 1),
            d * z * (5 * z * z - 3),
            -c * x * (5 * z * z - 1),
            b / 2 * z * (x * x - y * y),
            -a * x * (x * x - 3 * y * y),
        ]
    return torch.stack(columns, dim=-1)


def sh_colors(sh: Tensor, means: Tensor, camera_center: Tensor, degree: int) -> Tensor:
    """Colours of splats seen from a place, not below zero.

    Args:
        sh: Coefficients; those above `degree` are not used. [N, K, 3]
        means: Metres. [N, 3]
        camera_center: Metres. [3]
        degree: 0 to 3.

    Returns:
        [N, 3]
    """
    count = num_sh_coefficients(degree)
    basis = sh_basis(normalize(means - camera_center, dim=-1), degree)
    return (torch.einsum("nk,nkc->nc", basis, sh[:, :count]) + 0.5).clamp_min(0)
