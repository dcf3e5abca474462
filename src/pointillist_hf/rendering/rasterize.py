# SPDX-License-Identifier: Apache-2.0
"""The one front door to all rasterizers: splats and cameras in, images out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Literal, overload

import torch
from torch import Tensor

from ..geometry.number_checks import check_finite
from ..geometry.structures import Cameras, Gaussians, check_shape
from .reference_backend import find_finite

Backend = Literal["auto", "cpu", "gsplat", "reference"]


@dataclass(frozen=True)
class RasterizationMeta:
    """What a picture knows of its splats; nothing here carries a gradient.

    `depths` costs a second picture, drawn when it is first read.
    """

    means2d: Tensor  # [C, N, 2] pixels, 0 where not drawn
    radii: Tensor  # [C, N] half the longer side of what is drawn, whole pixels; 0 where not drawn
    draw_depths: Callable[[], Tensor] = field(repr=False)

    @cached_property
    def depths(self) -> Tensor:
        """Mean depth along the camera axis of what a pixel shows, metres; 0 where nothing is.

        [C, H, W, 1]
        """
        return self.draw_depths()


@overload
def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    backgrounds: Tensor | None = ...,
    backend: Backend = ...,
    screen_probe: Tensor | None = ...,
    with_meta: Literal[False] = ...,
) -> tuple[Tensor, Tensor]: ...


@overload
def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    backgrounds: Tensor | None = ...,
    backend: Backend = ...,
    screen_probe: Tensor | None = ...,
    with_meta: Literal[True],
) -> tuple[Tensor, Tensor, RasterizationMeta]: ...


def rasterize(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    backgrounds: Tensor | None = None,
    backend: Backend = "auto",
    screen_probe: Tensor | None = None,
    with_meta: bool = False,
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, RasterizationMeta]:
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
        screen_probe: Zeros that require a gradient. `backward` adds to its `grad` the loss's
            gradient by the screen positions of the splats, per pixel. [C, N, 2]
        with_meta: Also returns where the splats are on the screen.

    Returns:
        Colors [C, H, W, 3], alphas in [0, 1] [C, H, W, 1]; and a `RasterizationMeta` if asked for.

    Example:
        >>> colors, alphas = rasterize(avatar.pose(params)[0], orbit_cameras([0.0, 30.0]))
    """
    _check_inputs(gaussians, cameras, backgrounds)
    if screen_probe is not None:
        _check_probe(screen_probe, gaussians, cameras)
    if backend == "auto":
        backend = "gsplat" if gaussians.means.is_cuda else "cpu"
    draw = _find_backend(backend)
    dtype = gaussians.means.dtype if backend == "reference" else torch.float32
    gaussians, cameras = gaussians.to(dtype), cameras.to(dtype)
    backgrounds = None if backgrounds is None else backgrounds.to(dtype)
    colors, alphas, means2d, radii = draw(gaussians, cameras, backgrounds, screen_probe)
    if not with_meta:
        return colors, alphas
    # A copy: an optimiser may have moved the splats before anyone reads the depths.
    copy = Gaussians(
        **{f.name: getattr(gaussians, f.name).detach().clone() for f in fields(gaussians)}
    )
    meta = RasterizationMeta(means2d, radii, partial(_draw_depths, copy, cameras, draw))
    return colors, alphas, meta


def _find_backend(backend: str) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    # Imported one by one: the CPU kernels cost a second to load, and gsplat is optional.
    if backend == "cpu":
        from .cpu.backend import rasterize_cpu

        return rasterize_cpu
    if backend == "gsplat":
        from .gsplat_backend import rasterize_gsplat

        return rasterize_gsplat
    if backend == "reference":
        from .reference_backend import rasterize_reference

        return rasterize_reference
    raise ValueError(f'`backend` must be "auto", "cpu", "gsplat" or "reference", got {backend!r}.')


@torch.no_grad()
def _draw_depths(
    gaussians: Gaussians, cameras: Cameras, draw: Callable[..., tuple[Tensor, ...]]
) -> Tensor:
    """Depths as colours, over the weights that they were blended with. [C, H, W, 1]"""
    # The backends no longer see a colour that is not finite.
    gaussians = gaussians[find_finite(gaussians)]
    depths = gaussians.means.new_zeros(len(cameras), cameras.height, cameras.width, 1)
    for index, viewmat in enumerate(cameras.viewmats):
        z = gaussians.means @ viewmat[2, :3] + viewmat[2, 3]
        colors = torch.stack([z, torch.ones_like(z), torch.zeros_like(z)], dim=-1)
        painted = replace(gaussians, colors=colors)
        sums = draw(painted, cameras[index : index + 1], None, None)[0][0]
        total, weight = sums[..., :1], sums[..., 1:2]
        depths[index] = torch.where(weight > 0, total / weight, 0)
    return depths


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
    for name, tensor in tensors.items():
        if not name.startswith("gaussians"):  # splats that are not finite are left out
            check_finite(name, tensor)
    for name in ("viewmats", "Ks"):
        if tensors[f"cameras.{name}"].requires_grad:
            raise ValueError(
                f"`cameras.{name}` requires a gradient, which the rasterizer does not compute; "
                "pass it detached."
            )


def _check_probe(screen_probe: Tensor, gaussians: Gaussians, cameras: Cameras) -> None:
    check_shape("screen_probe", screen_probe, (len(cameras), len(gaussians), 2))
    if not (screen_probe.is_floating_point() and screen_probe.device == gaussians.means.device):
        raise ValueError(
            f"`screen_probe` must be floating point on {gaussians.means.device}, got "
            f"{screen_probe.dtype} on {screen_probe.device}."
        )
    if not (screen_probe.requires_grad and screen_probe.is_leaf):
        raise ValueError(
            "`screen_probe` must be a leaf that requires a gradient, or its `grad` stays None: "
            "`torch.zeros(C, N, 2, requires_grad=True)`."
        )
