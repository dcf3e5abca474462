# SPDX-License-Identifier: Apache-2.0
"""Gaussian splatting as its definition: every pixel meets every splat, in any dtype, by autograd.

The oracle of the tests, and the place to read the rules that every backend keeps (those of gsplat's
"classic" mode): pixel centres at +0.5; EPS2D pixels^2 of blur; alpha is clamped to MAX_ALPHA and
skipped below MIN_ALPHA; a pixel stops before the splat that would take its transmittance down to
MIN_TRANSMITTANCE; near to far by depth, ties by index; splats with a non-finite value are dropped.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry.rotations import quat_to_matrix
from ..geometry.structures import Cameras, Gaussians

NEAR, FAR = 0.01, 1e10  # metres
EPS2D = 0.3
MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE = 0.999, 1 / 255, 1e-4

MAX_CHUNK_ELEMENTS = 2**22  # (pixel, splat) pairs evaluated at once


class ProjectedSplats(NamedTuple):
    """Splats on the image plane."""

    means2d: Tensor  # [N, 2] pixels
    conics: Tensor  # [N, 3] inverse 2-D covariance: xx, xy, yy
    depths: Tensor  # [N] metres
    is_visible: Tensor  # [N] bool: in front of the camera, and finite


def rasterize_reference(
    gaussians: Gaussians,
    cameras: Cameras,
    backgrounds: Tensor | None,
    screen_probe: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colors, alphas, means2d and radii; see `rasterize`."""
    num_cameras, width, height = len(cameras), cameras.width, cameras.height
    if backgrounds is None:
        backgrounds = gaussians.colors.new_zeros(num_cameras, 3)
    if screen_probe is None:
        screen_probe = gaussians.means.new_zeros(num_cameras, len(gaussians), 2)
    means2d = gaussians.means.new_zeros(screen_probe.shape)
    radii = gaussians.means.new_zeros(screen_probe.shape[:2])
    images = []
    for index, (viewmat, K) in enumerate(zip(cameras.viewmats, cameras.Ks, strict=True)):
        with torch.no_grad():
            projected = project_splats(gaussians, viewmat, K, width, height)
            radii[index] = screen_radii(projected, gaussians.opacities, width, height)
            is_drawn = radii[index] > 0
            means2d[index, is_drawn] = projected.means2d[is_drawn]
            order = torch.argsort(projected.depths, stable=True)
            order = order[projected.is_visible[order]]
        # A second projection, of the kept splats alone: a non-finite one would put NaN into every
        # gradient, even behind a mask.
        kept, probe = gaussians[order], screen_probe[index, order].to(means2d)
        projected = project_splats(kept, viewmat, K, width, height)
        # The probe moves nothing and takes the gradient of a movement.
        projected = projected._replace(means2d=projected.means2d + (probe - probe.detach()))
        images.append(_blend(projected, kept, backgrounds[index], width, height))
    shape = (num_cameras, height, width, 4)
    result = torch.stack(images).reshape(shape) if images else gaussians.colors.new_zeros(shape)
    return result[..., :3], result[..., 3:], means2d, radii


def _blend(
    projected: ProjectedSplats, gaussians: Gaussians, background: Tensor, width: int, height: int
) -> Tensor:
    """Colour and alpha of every pixel, from splats in the order of depth. [H * W, 4]"""
    rows = max(1, MAX_CHUNK_ELEMENTS // (width * max(len(gaussians), 1)))
    chunks = []
    for start in range(0, height, rows):
        pixels = pixel_centres(width, start, min(start + rows, height)).to(gaussians.means)
        alphas = splat_alphas(projected, gaussians.opacities, pixels)
        # Splats that are skipped leave the product as it is, so they need no case of their own.
        reached = (torch.cumprod(1 - alphas, dim=-1) > MIN_TRANSMITTANCE).to(alphas.dtype)
        alphas = alphas * torch.cumprod(reached, dim=-1)
        through = torch.cumprod(torch.cat([torch.ones_like(pixels[:, :1]), 1 - alphas], -1), -1)
        color = (alphas * through[:, :-1]) @ gaussians.colors + through[:, -1:] * background
        chunks.append(torch.cat([color, 1 - through[:, -1:]], dim=-1))
    return torch.cat(chunks)


def pixel_centres(width: int, first_row: int, last_row: int) -> Tensor:
    """X and y of the pixels of some rows, row by row. [rows * W, 2]"""
    y, x = torch.meshgrid(torch.arange(first_row, last_row), torch.arange(width), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5


def splat_alphas(projected: ProjectedSplats, opacities: Tensor, pixels: Tensor) -> Tensor:
    """Alpha of each splat at each pixel, clamped and cut. [P, N]"""
    dx, dy = (projected.means2d - pixels[:, None]).unbind(-1)
    xx, xy, yy = projected.conics.unbind(-1)
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alphas = (opacities * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    return torch.where((sigma < 0) | (alphas < MIN_ALPHA), 0, alphas)


def project_splats(
    gaussians: Gaussians, viewmat: Tensor, K: Tensor, width: int, height: int
) -> ProjectedSplats:
    """EWA projection: the perspective map linearised at each centre."""
    viewmat, K = viewmat.to(gaussians.means), K.to(gaussians.means)
    rotation = viewmat[:3, :3]
    x, y, z = (gaussians.means @ rotation.T + viewmat[:3, 3]).unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]

    # Far outside the image the linearisation blows up, so its base point is kept near the frustum.
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    u = torch.clamp(x / z, min=-cx / fx - margin_x, max=(width - cx) / fx + margin_x)
    v = torch.clamp(y / z, min=-cy / fy - margin_y, max=(height - cy) / fy + margin_y)
    axis_x, axis_y, axis_z = rotation
    jacobian = torch.stack(
        [
            (fx / z)[:, None] * (axis_x - u[:, None] * axis_z),
            (fy / z)[:, None] * (axis_y - v[:, None] * axis_z),
        ],
        dim=1,
    )  # [N, 2, 3]

    factors = jacobian @ quat_to_matrix(gaussians.quats) * gaussians.scales[:, None]
    covariance = factors @ factors.mT
    xx, xy, yy = covariance[:, 0, 0] + EPS2D, covariance[:, 0, 1], covariance[:, 1, 1] + EPS2D
    determinant = xx * yy - xy * xy

    is_valid = find_finite(gaussians) & (gaussians.quats.norm(dim=-1) > 0)
    is_valid = is_valid & covariance.isfinite().all(-1).all(-1)
    return ProjectedSplats(
        torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1),
        torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None],
        z,
        is_valid & (z > NEAR) & (z < FAR) & (determinant > 0),
    )


def screen_radii(projected: ProjectedSplats, opacities: Tensor, width: int, height: int) -> Tensor:
    """Half the longer side of the box where alpha reaches MIN_ALPHA, rounded up to pixels.

    0 where the splat is not drawn: invisible, too transparent, or the box beside the image. [N]
    """
    xx, xy, yy = projected.conics.unbind(-1)
    variances = torch.stack([yy, xx], dim=-1) / (xx * yy - xy * xy)[:, None]
    reach = (2 * (opacities / MIN_ALPHA).clamp_min(1).log()).sqrt()
    half = reach[:, None] * variances.sqrt()
    low, high = projected.means2d - half, projected.means2d + half
    size = low.new_tensor([width, height])
    is_drawn = projected.is_visible & (high > 0).all(-1) & (low < size).all(-1) & (reach > 0)
    return torch.where(is_drawn, half.amax(-1).ceil(), 0)


def find_finite(gaussians: Gaussians) -> Tensor:
    """Whether all numbers of a splat are finite. [N] bool"""
    values = [gaussians.means, gaussians.quats, gaussians.scales, gaussians.colors]
    return torch.cat([*values, gaussians.opacities[:, None]], dim=-1).isfinite().all(-1)
