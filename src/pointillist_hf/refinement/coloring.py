# SPDX-License-Identifier: Apache-2.0
"""Colours without training: each point shows what the photograph shows where it falls."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.structures import Cameras, CanonicalPoints, Gaussians
from ..rendering import rasterize
from ..rigs.head_rig import HeadRig
from .face_kinds import PointKind
from .placement import Placement, place_points
from .portrait_view import PortraitView, sample_picture
from .projection import ProjectedPoints
from .surface_cloud import SurfaceCloud

CORRECTION = 0.8  # of the residual that a round adds
DARKEST, LIGHTEST = 0.005, 0.995
MOUTH_TINT = (0.45, 0.22, 0.22)  # of the skin, behind the lips
TEETH_TINT = (1.12, 1.08, 1.0)  # of the skin's mean brightness, if no tooth is seen
BRIGHT_SHARE = 0.6  # quantile of brightness beyond which an eye's points are its white


@torch.no_grad()
def color_points(
    cloud: SurfaceCloud,
    projected: ProjectedPoints,
    view: PortraitView,
    rig: HeadRig,
    *,
    num_rounds: int = 3,
) -> Tensor:
    """Colours of the points, sRGB.

    Args:
        cloud: Completed points.
        projected: The same points in the photograph.
        view: The photograph.
        rig: Of the bindings.
        num_rounds: How often the picture is compared and its residual added.

    Returns:
        [N, 3]
    """
    samples = sample_picture(view.foreground, projected.pixels)
    colors = color_the_unseen(projected.fill(samples), samples, projected)
    placement = place_points(cloud.points, rig, view.rig_params)
    for _ in range(num_rounds):
        samples = samples + CORRECTION * _residuals(cloud, colors, placement, projected, view)
        samples = samples.clamp(DARKEST, LIGHTEST)
        colors = color_the_unseen(projected.fill(samples), samples, projected)
    return colors.clamp(DARKEST, LIGHTEST)


@torch.no_grad()
def correct_colors(
    gaussians: Gaussians,
    bindings: Tensor,
    projected: ProjectedPoints,
    view: PortraitView,
    rig: HeadRig,
    *,
    num_rounds: int = 3,
) -> Gaussians:
    """Splats whose visible ones show what the photograph shows where they fall.

    Args:
        gaussians: Canonical, N of them.
        bindings: The face of each. [N]
        projected: Their points in the photograph.
        view: The photograph.
        rig: Of the bindings.
        num_rounds: How often the picture is compared and its residual added.
    """
    placement = place_points(CanonicalPoints(gaussians.means, bindings), rig, view.rig_params)
    inside = (view.matte > 0.5)[..., None]
    for _ in range(num_rounds):
        drawn, alphas = rasterize(placement.pose_gaussians(gaussians), view.cameras)
        missing = (view.foreground * alphas[0] - drawn[0]) * inside
        residuals = CORRECTION * sample_picture(missing, projected.pixels)
        colors = gaussians.colors + torch.where(projected.is_visible[:, None], residuals, 0)
        gaussians = replace(gaussians, colors=colors.clamp(DARKEST, LIGHTEST))
    return gaussians


def _residuals(
    cloud: SurfaceCloud,
    colors: Tensor,
    placement: Placement,
    projected: ProjectedPoints,
    view: PortraitView,
) -> Tensor:
    """What the picture of the points lacks of the photograph, at the visible ones. [N, 3]"""
    picture = draw_over_photograph(cloud, colors, placement, view, view.cameras)
    missing = (view.foreground - picture) * (view.matte > 0.5)[..., None]
    at_points = sample_picture(missing, projected.pixels)
    return torch.where(projected.is_visible[:, None], at_points, 0)


def draw_over_photograph(
    cloud: SurfaceCloud,
    colors: Tensor,
    placement: Placement,
    view: PortraitView,
    cameras: Cameras,
) -> Tensor:
    """The points in front of the photograph itself, so that gaps leave no residual. [H, W, 3]"""
    gaussians = placement.pose_gaussians(cloud.to_gaussians(colors))
    drawn, alphas = rasterize(gaussians, cameras)
    return drawn[0] + (1 - alphas[0]) * view.foreground


def color_the_unseen(filled: Tensor, samples: Tensor, projected: ProjectedPoints) -> Tensor:
    """What has colours of its own where no photograph shows it: whites, teeth, mouth."""
    visible, kinds = projected.is_visible, projected.kinds
    skin = samples[visible & (kinds == PointKind.SKIN)]
    if not len(skin):
        return filled
    middle = skin.median(0).values
    colors = filled.clone()
    colors[(kinds == PointKind.MOUTH) & ~visible] = middle * middle.new_tensor(MOUTH_TINT)
    for kind in (PointKind.TEETH, PointKind.EYE):
        hidden, seen = (kinds == kind) & ~visible, samples[visible & (kinds == kind)]
        if kind == PointKind.TEETH and len(seen) < 12:
            colors[hidden] = (middle.mean() * middle.new_tensor(TEETH_TINT)).clamp(max=0.95)
        elif len(seen):
            brightness = seen.mean(1)
            colors[hidden] = seen[brightness >= brightness.quantile(BRIGHT_SHARE)].median(0).values
    return colors
