# SPDX-License-Identifier: Apache-2.0
"""The one front door to all rasterizers: splats and cameras in, images out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..geometry.structures import Cameras, Gaussians, check_shape


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    backgrounds: Tensor | None = None,
    backend: Literal["auto", "cpu", "gsplat", "reference"] = "auto",
) -> tuple[Tensor, Tensor]:
    """Images of one cloud from all cameras.

    Differentiable with respect to the gaussians and the backgrounds, not to the cameras. Splats
    with a non-finite value are left out.

    Args:
        gaussians: One cloud, without leading dimensions.
        cameras: On the device of the gaussians.
        backgrounds: Colour behind the splats of each camera; None is black. [C, 3]
        backend: "auto" takes gsplat for CUDA tensors and the CPU kernels otherwise. These two
            compute and answer in float32. "reference" is the slow definition, for tests, in the
            dtype of the gaussians.

    Returns:
        Colors [C, H, W, 3], alphas in [0, 1] [C, H, W, 1].

    Example:
        >>> colors, alphas = rasterize(avatar.pose(params)[0], orbit_cameras([0.0, 30.0]))
    """
    _check_inputs(gaussians, cameras, backgrounds)
    if backend == "auto":
        backend = "gsplat" if gaussians.means.is_cuda else "cpu"
    dtype = gaussians.means.dtype if backend == "reference" else torch.float32
    gaussians, cameras = gaussians.to(dtype), cameras.to(dtype)
    backgrounds = None if backgrounds is None else backgrounds.to(dtype)

    # Imported one by one: the CPU kernels cost a second to load, and gsplat is optional.
    if backend == "cpu":
        from .cpu_backend import rasterize_cpu

        return rasterize_cpu(gaussians, cameras, backgrounds)
    if backend == "gsplat":
        from .gsplat_backend import rasterize_gsplat

        return rasterize_gsplat(gaussians, cameras, backgrounds)
    if backend == "reference":
        from .reference_backend import rasterize_reference

        return rasterize_reference(gaussians, cameras, backgrounds)
    raise ValueError(f'`backend` must be "auto", "cpu", "gsplat" or "reference", got {backend!r}.')


def _check_inputs(gaussians: Gaussians, cameras: Cameras, backgrounds: Tensor | None) -> None:
    shape, device = gaussians.means.shape, gaussians.means.device
    if len(shape) != 2:
        raise ValueError(
            f"`gaussians` must be one cloud [N], got {list(shape[:-1])}; pick a frame, as in "
            "`rasterize(gaussians[0], cameras)`."
        )
    if backgrounds is not None:
        check_shape("backgrounds", backgrounds, (len(cameras), 3))
    tensors = {
        "gaussians.means": gaussians.means,
        "gaussians.quats": gaussians.quats,
        "gaussians.scales": gaussians.scales,
        "gaussians.opacities": gaussians.opacities,
        "gaussians.colors": gaussians.colors,
        "cameras.viewmats": cameras.viewmats,
        "cameras.Ks": cameras.Ks,
    }
    if backgrounds is not None:
        tensors["backgrounds"] = backgrounds
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"`{name}` must be floating point, got {tensor.dtype}.")
        if tensor.device != device:
            raise ValueError(
                f"`{name}` is on {tensor.device} and `gaussians.means` on {device}; move both to "
                "one device."
            )
    for name in ("viewmats", "Ks"):
        if tensors[f"cameras.{name}"].requires_grad:
            raise ValueError(
                f"`cameras.{name}` requires a gradient, which the rasterizer does not compute; "
                "pass it detached."
            )
