# SPDX-License-Identifier: Apache-2.0
"""Splats, free and on the faces of a rig, and cameras that look at them."""

import math

import torch

from pointillist_hf.geometry.structures import BoundSplats, Cameras, Gaussians
from pointillist_hf.rendering.reference_backend import (
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    pixel_centres,
    project_splats,
    splat_alphas,
)

FOCAL = 100.0
NAMES = ("means", "quats", "scales", "opacities", "colors")


def build_cameras(width=32, height=32, yaws=(0.0,), dtype=torch.float32):
    """Cameras on a circle around the origin, 1 m away, the principal point in the middle."""
    viewmats = torch.eye(4, dtype=dtype).repeat(len(yaws), 1, 1)
    for viewmat, yaw in zip(viewmats, yaws, strict=True):
        c, s = math.cos(yaw), math.sin(yaw)
        viewmat[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        viewmat[2, 3] = 1.0
    K = [[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]]
    return Cameras(viewmats, torch.tensor(K, dtype=dtype).repeat(len(yaws), 1, 1), width, height)


def build_splat(x=0.005, y=0.005, z=0.0, opacity=0.8, scale=0.02, color=(0.2, 0.5, 0.9)):
    """A ball that by default is centred on pixel (16, 16) of the default camera."""
    return Gaussians(
        torch.tensor([[x, y, z]]),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        torch.full((1, 3), scale),
        torch.tensor([opacity]),
        torch.tensor([color]),
    )


def build_cloud(num_points=200, seed=0, extent=0.2, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    means = (torch.rand(num_points, 3, generator=g, dtype=torch.float64) - 0.5) * extent
    values = [
        means,
        torch.randn(num_points, 4, generator=g, dtype=torch.float64),
        0.02 * torch.exp(0.5 * torch.randn(num_points, 3, generator=g, dtype=torch.float64)),
        torch.sigmoid(0.5 + 1.8 * torch.randn(num_points, generator=g, dtype=torch.float64)),
        torch.rand(num_points, 3, generator=g, dtype=torch.float64),
    ]
    return Gaussians(*(v.to(dtype) for v in values))


def scatter_on_faces(rig, count=300, spread=0.5):
    """Splats on faces drawn at random, so far from them in units of the face."""
    g = torch.Generator().manual_seed(0)
    return BoundSplats(
        means=spread * torch.randn(count, 3, generator=g),
        log_scales=torch.zeros(count, 3),
        quats=torch.randn(count, 4, generator=g),
        opacity_logits=torch.randn(count, generator=g),
        sh=torch.zeros(count, 1, 3),
        bindings=torch.randint(rig.num_faces, (count,), generator=g),
    )


def find_clear_pixels(gaussians, cameras):
    """Pixels with no splat so near a threshold that float32 may decide otherwise. [C, H, W]"""
    clear = []
    for viewmat, K in zip(cameras.viewmats, cameras.Ks, strict=True):
        splats = project_splats(gaussians, viewmat, K, cameras.width, cameras.height)
        order = splats.depths.argsort()
        pixels = pixel_centres(cameras.width, 0, cameras.height).to(gaussians.means)
        alphas = splat_alphas(splats, gaussians.opacities, pixels)[:, order]
        # 1e-4 beside the cut: a raised opacity shows the alphas just below it.
        lowered, raised = (
            splat_alphas(splats, gaussians.opacities * factor, pixels)
            for factor in (1 - 1e-4, 1 + 1e-4)
        )
        near_cut = ((lowered >= MIN_ALPHA) != (raised >= MIN_ALPHA)).any(-1)
        through = torch.cumprod(1 - alphas, -1)
        near_stop = ((through / MIN_TRANSMITTANCE - 1).abs() < 1e-3).any(-1)
        clear.append(~(near_cut | near_stop).reshape(cameras.height, cameras.width))
    return torch.stack(clear)
