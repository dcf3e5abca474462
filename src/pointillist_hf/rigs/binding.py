# SPDX-License-Identifier: Apache-2.0
"""How points and gaussians ride on the faces they are bound to (paper Sec. 3.1 and Eq. 5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ..geometry.rotations import matrix_to_quat, nearest_rotation, quat_multiply
from ..geometry.structures import CanonicalPoints, Gaussians, RigParams
from ..geometry.triangles import barycentric_coordinates, interpolate_corners, triangle_frames
from .head_rig import HeadRig
from .skinning import SkinnedPoints, skin_points
from .stretching import lay_axes, stretch_axes

AnimationMode = Literal[
    "lbs",  # interpolated blendshapes and weights, the paper's Eq. 5
    "triangle",  # rigid with the bound triangle, as in GaussianAvatars
]


def check_bindings(bindings: Tensor, num_faces: int) -> None:
    """Refuses a binding to a face that the rig does not have."""
    if len(bindings) and (bindings.min() < 0 or bindings.max() >= num_faces):
        low, high = int(bindings.min()), int(bindings.max())
        raise ValueError(
            f"`bindings` must be faces 0 to {num_faces - 1} of the rig, got {low} to {high}."
        )


def bind_points(points: CanonicalPoints, rig: HeadRig, canonical_vertices: Tensor) -> SkinnedPoints:
    """Points with the vertex attributes of their faces, interpolated (Eq. 5).

    Args:
        points: N points in the canonical space of the identity.
        rig: The rig whose faces they are bound to.
        canonical_vertices: That identity at rest, metres. [V, 3]
    """
    check_bindings(points.bindings, rig.num_faces)
    corners = canonical_vertices[rig.faces[points.bindings]]
    barycentric = barycentric_coordinates(points.means, corners)

    def carry(attributes: Tensor) -> Tensor:
        return interpolate_corners(attributes, rig.faces, points.bindings, barycentric)

    return SkinnedPoints(
        means=points.means,
        exprdirs=carry(rig.exprdirs),
        posedirs=carry(rig.posedirs),
        lbs_weights=carry(rig.lbs_weights),
    )


def animate_gaussians(
    gaussians: Gaussians,
    bindings: Tensor,
    rig: HeadRig,
    rig_params: RigParams,
    *,
    mode: AnimationMode = "lbs",
    bound: SkinnedPoints | None = None,
    stretch: bool = False,
) -> Gaussians:
    """The gaussians in every frame, with their rotations; colours do not change.

    Args:
        gaussians: N canonical gaussians of one identity.
        bindings: Face of each. [N]
        rig: The rig of the bindings.
        rig_params: T frames; every frame must carry the `betas` of that identity.
        mode: `AnimationMode`.
        bound: Of `bind_points`, for callers that animate the same gaussians again and again.
        stretch: Whether splats grow with their faces; in the paper sizes do not change.

    Returns:
        Gaussians with leading dimensions [T, N].
    """
    rig.check_params(rig_params)
    # Which attributes a point inherits is a choice, not a quantity to optimise.
    rest = rig.canonical_vertices(rig_params.betas[:1])[0].detach()
    if mode == "lbs":
        if bound is None:
            with torch.no_grad():
                bound = bind_points(CanonicalPoints(gaussians.means, bindings), rig, rest)
        means, rotations = _skin(replace(bound, means=gaussians.means), rig, rig_params)
    elif mode == "triangle":
        means, rotations = _follow_triangles(gaussians.means, bindings, rig, rig_params, rest)
    else:
        raise ValueError(f"`mode` must be 'lbs' or 'triangle', got {mode!r}.")
    frames = len(rig_params)

    def repeat(values: Tensor) -> Tensor:
        return values.expand(frames, *values.shape)

    scales = repeat(gaussians.scales)
    if stretch:
        scales = scales * _find_stretch(gaussians.quats, bindings, rig, rig_params, rest)
    return Gaussians(
        means=means,
        quats=quat_multiply(matrix_to_quat(rotations), repeat(gaussians.quats)),
        scales=scales,
        opacities=repeat(gaussians.opacities),
        colors=repeat(gaussians.colors),
    )


def _skin(bound: SkinnedPoints, rig: HeadRig, rig_params: RigParams) -> tuple[Tensor, Tensor]:
    motion = rig.joint_motion(rig_params)
    means, blended = skin_points(bound, rig_params.expression, motion)
    return means, nearest_rotation(blended)


@torch.no_grad()
def _find_stretch(
    quats: Tensor, bindings: Tensor, rig: HeadRig, rig_params: RigParams, rest: Tensor
) -> Tensor:
    """Factors of the scales. [T, N, 3]"""
    own = rig.faces[bindings]
    return stretch_axes(lay_axes(quats, rest[own]), rig(rig_params)[:, own])


def _follow_triangles(
    means: Tensor, bindings: Tensor, rig: HeadRig, rig_params: RigParams, rest: Tensor
) -> tuple[Tensor, Tensor]:
    check_bindings(bindings, rig.num_faces)
    rest_rotations, rest_centres, rest_sizes = triangle_frames(rest[rig.faces[bindings]])
    local = torch.einsum("nji,nj->ni", rest_rotations, means - rest_centres) / rest_sizes[:, None]
    posed = rig(rig_params)[:, rig.faces[bindings]]
    rotations, centres, sizes = triangle_frames(posed)
    moved = torch.einsum("tnij,nj->tni", rotations, local) * sizes[..., None] + centres
    return moved, rotations @ rest_rotations.mT
