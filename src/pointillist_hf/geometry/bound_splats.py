# SPDX-License-Identifier: Apache-2.0
"""Splats between the world and the frames of the triangles that carry them (GaussianAvatars).

A colour is the zeroth spherical harmonic: colour = 0.5 + SH_C0 * coefficient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .rotations import matrix_to_quat, quat_multiply
from .spherical_harmonics import SH_C0
from .structures import BoundSplats, Gaussians, check_shape
from .triangles import triangle_frames

OPACITY_EPS = 1e-6  # keeps the logits of 0 and 1 finite


def local_to_global(splats: BoundSplats, corners: Tensor, *, legacy: bool = False) -> Gaussians:
    """The splats on their triangles, in one pose of the mesh or in several.

    Differentiable with respect to both. Colours are the zeroth harmonic alone, cut off below 0.

    Args:
        splats: N splats.
        corners: The triangle of each, metres. [..., N, 3, 3]
        legacy: Rotations as GaussianAvatars composed them before March 2024, the triangle's
            first; the files do not say which they hold.

    Returns:
        Gaussians [..., N].
    """
    check_shape("corners", corners, (*[None] * (corners.ndim - 3), len(splats), 3, 3))
    rotations, centres, sizes = triangle_frames(corners)
    turned = torch.einsum("...nij,nj->...ni", rotations, splats.means)
    frames, own = matrix_to_quat(rotations), normalize(splats.quats, dim=-1)
    own = own.expand_as(frames)
    opacities, colors = (
        splats.opacity_logits.sigmoid(),
        (0.5 + SH_C0 * splats.sh[:, 0]).clamp_min(0),
    )
    return Gaussians(
        means=turned * sizes[..., None] + centres,
        quats=quat_multiply(own, frames) if legacy else quat_multiply(frames, own),
        scales=sizes[..., None] * splats.log_scales.exp(),
        opacities=opacities.expand(sizes.shape),
        colors=colors.expand(centres.shape),
    )


def global_to_local(
    gaussians: Gaussians, bindings: Tensor, corners: Tensor, *, legacy: bool = False
) -> BoundSplats:
    """The splats that `local_to_global` puts where these are; the harmonics have degree 0.

    Args:
        gaussians: N splats.
        bindings: The face of each. [N]
        corners: That face in the pose of the gaussians, metres; one without area gives values
            that are not finite. [N, 3, 3]
        legacy: See `local_to_global`.
    """
    check_shape("corners", corners, (len(gaussians), 3, 3))
    rotations, centres, sizes = triangle_frames(corners)
    back = matrix_to_quat(rotations.mT)
    quats = normalize(gaussians.quats, dim=-1)
    offsets = torch.einsum("nji,nj->ni", rotations, gaussians.means - centres)
    return BoundSplats(
        means=offsets / sizes[:, None],
        log_scales=(gaussians.scales / sizes[:, None]).log(),
        quats=quat_multiply(quats, back) if legacy else quat_multiply(back, quats),
        opacity_logits=torch.logit(gaussians.opacities, eps=OPACITY_EPS),
        sh=((gaussians.colors - 0.5) / SH_C0)[:, None],
        bindings=bindings,
    )
