# SPDX-License-Identifier: Apache-2.0
"""Gaussian splatting on CUDA, by gsplat; nothing else in the package imports it."""

from __future__ import annotations

from torch import Tensor

from ..geometry.structures import Cameras, Gaussians
from .reference_backend import EPS2D, FAR, NEAR, find_finite, rasterize_reference


def rasterize_gsplat(
    gaussians: Gaussians, cameras: Cameras, backgrounds: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Colors [C, H, W, 3] and alphas [C, H, W, 1] from float32 records; see `rasterize`.

    gsplat clamps alpha at 0.999 like the other backends before its version 1.6, and at 0.99 since.
    """
    if not gaussians.means.is_cuda:
        raise ValueError(
            f'`backend="gsplat"` needs CUDA tensors, got {gaussians.means.device}; move them with '
            '`.to("cuda")`, or use `backend="cpu"`.'
        )
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise ImportError(
            "Rendering on CUDA needs gsplat: `pip install pointillist_hf[gpu]`."
        ) from error
    is_finite = find_finite(gaussians)
    if not is_finite.all():
        gaussians = gaussians[is_finite]
    if len(gaussians) == 0:
        # gsplat takes no empty cloud.
        return rasterize_reference(gaussians, cameras, backgrounds)
    colors, alphas, _ = rasterization(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.colors,
        cameras.viewmats,
        cameras.Ks,
        cameras.width,
        cameras.height,
        near_plane=NEAR,
        far_plane=FAR,
        eps2d=EPS2D,
        packed=False,
        backgrounds=backgrounds,
        rasterize_mode="classic",
    )
    return colors, alphas
