# SPDX-License-Identifier: Apache-2.0
"""Gaussian splatting on CUDA, by gsplat; nothing else in the package imports it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.structures import Cameras, Gaussians
from .reference_backend import EPS2D, FAR, NEAR, find_finite, rasterize_reference


def rasterize_gsplat(
    gaussians: Gaussians,
    cameras: Cameras,
    backgrounds: Tensor | None,
    screen_probe: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colors, alphas, means2d and radii from float32 records; see `rasterize`.

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
    kept = gaussians if is_finite.all() else gaussians[is_finite]
    if len(kept) == 0:
        # gsplat takes no empty cloud.
        return rasterize_reference(gaussians, cameras, backgrounds, screen_probe)
    if screen_probe is not None and not kept.means.requires_grad:
        # Otherwise gsplat's screen positions may have no gradient for the probe to take.
        kept = replace(kept, means=kept.means.detach().requires_grad_())
    colors, alphas, meta = rasterization(
        kept.means,
        kept.quats,
        kept.scales,
        kept.opacities,
        kept.colors,
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
    if screen_probe is not None and torch.is_grad_enabled():
        probe_gradient(meta["means2d"], screen_probe, is_finite)
    means2d, radii = spread_projection(meta["means2d"], meta["radii"], is_finite)
    return colors, alphas, means2d, radii


def probe_gradient(means2d: Tensor, screen_probe: Tensor, is_finite: Tensor) -> None:
    """Lets a backward pass through `means2d` add its gradient to that of the probe.

    gsplat projects and blends in one call, into which the probe cannot be put: the gradient is
    copied by a hook, so `torch.autograd.grad` does not see the probe, but `backward` does.

    Args:
        means2d: Screen positions of the kept splats. [C, K, 2]
        screen_probe: A leaf. [C, N, 2]
        is_finite: The kept splats among all. [N] bool, K of them True
    """

    def add_gradient(gradient: Tensor) -> None:
        whole = torch.zeros_like(screen_probe)
        whole[:, is_finite] = gradient.detach().to(whole.dtype)
        screen_probe.grad = whole if screen_probe.grad is None else screen_probe.grad + whole

    means2d.register_hook(add_gradient)


def spread_projection(means2d: Tensor, radii: Tensor, is_finite: Tensor) -> tuple[Tensor, Tensor]:
    """Screen positions [C, N, 2] and radii [C, N] of all splats, 0 where not drawn.

    Args:
        means2d: Of the kept splats; gsplat leaves the rows of culled ones unwritten. [C, K, 2]
        radii: Along x and y since gsplat 1.5, integers. [C, K, 2] or [C, K]
        is_finite: The kept splats among all. [N] bool
    """
    means2d, radii = means2d.detach(), radii.detach().to(means2d.dtype)
    if radii.ndim == 3:
        radii = torch.where((radii > 0).all(-1), radii.amax(-1), 0)
    shape = (len(means2d), len(is_finite))
    all_means2d, all_radii = means2d.new_zeros(*shape, 2), means2d.new_zeros(shape)
    all_means2d[:, is_finite] = torch.where(radii[..., None] > 0, means2d, 0)
    all_radii[:, is_finite] = radii
    return all_means2d, all_radii
