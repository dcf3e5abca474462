# SPDX-License-Identifier: Apache-2.0
"""What a landmark fit needs of a rig: the linear model at chosen places, float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.structures import TensorRecord
from ..geometry.triangles import interpolate_corners
from ..rigs.head_rig import HeadRig

JAW, LEFT_EYE, RIGHT_EYE = 2, 3, 4  # joints
MOVING_JOINTS = [JAW, LEFT_EYE, RIGHT_EYE]


@dataclass(frozen=True)
class PointBasis(TensorRecord):
    """N places on a rig, or N in each of T frames: what a vertex is to FLAME."""

    means: Tensor  # [T or 1, N, 3] metres
    shapedirs: Tensor  # [T or 1, N, 3, S]
    exprdirs: Tensor  # [T or 1, N, 3, E]
    posedirs: Tensor  # [T or 1, N, 3, 36]
    lbs_weights: Tensor  # [T or 1, N, J]

    def gather(self, ids: Tensor) -> PointBasis:
        """The places chosen in each frame. [T, M] -> [T, M, ...]"""
        return PointBasis(
            self.means[0, ids],
            self.shapedirs[0, ids],
            self.exprdirs[0, ids],
            self.posedirs[0, ids],
            self.lbs_weights[0, ids],
        )


@dataclass(frozen=True)
class JointBasis(TensorRecord):
    """Where the jaw and the eyes turn."""

    means: Tensor  # [3, 3] metres
    shapedirs: Tensor  # [3, 3, S]
    exprdirs: Tensor  # [3, 3, E]


def build_joint_basis(rig: HeadRig, num_betas: int, num_expressions: int) -> JointBasis:
    """The jaw and the eyes of a rig, float64, with its first coefficients."""
    rows = rig.J_regressor[list(MOVING_JOINTS)].double()
    return JointBasis(
        means=rows @ rig.v_template.double(),
        shapedirs=torch.einsum("jv,vcs->jcs", rows, rig.shapedirs[..., :num_betas].double()),
        exprdirs=torch.einsum("jv,vce->jce", rows, rig.exprdirs[..., :num_expressions].double()),
    )


def build_vertex_basis(
    rig: HeadRig, ids: Tensor, num_betas: int, num_expressions: int
) -> PointBasis:
    """Vertices of a rig, float64, with its first coefficients. [N] -> [1, N, ...]"""
    return PointBasis(
        rig.v_template[ids][None].double(),
        rig.shapedirs[ids][None, ..., :num_betas].double(),
        rig.exprdirs[ids][None, ..., :num_expressions].double(),
        rig.posedirs[ids][None].double(),
        rig.lbs_weights[ids][None].double(),
    )


def interpolate_basis(corners: PointBasis, barycentric: Tensor) -> PointBasis:
    """Points inside triangles from their corners, 3 for each. [1, 3 N, ...] -> [1, N, ...]"""
    faces = torch.arange(3 * len(barycentric), device=barycentric.device).reshape(-1, 3)
    bindings = torch.arange(len(barycentric), device=barycentric.device)
    return PointBasis(
        **{
            name: interpolate_corners(value[0], faces, bindings, barycentric.double())[None]
            for name, value in vars(corners).items()
        }
    )


def concatenate(first: PointBasis, second: PointBasis) -> PointBasis:
    """The places of both, one after the other."""
    pairs = {name: (value, getattr(second, name)) for name, value in vars(first).items()}
    return PointBasis(**{name: torch.cat(pair, dim=1) for name, pair in pairs.items()})
