# SPDX-License-Identifier: Apache-2.0
"""Colours without training: each point shows what the photograph shows where it falls."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

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
FEW_TEETH = 12  # visible points that say nothing
LUMA = (0.299, 0.587, 0.114)
SHADES = (0.85, 1.2)  # brightness of skin over what it is lent
LID_SHARE = 0.6  # of the skin around it that a lid shows which an open eye folds to a dark line
NEARBY, OVERSHOOT = 2, 0.04  # pixels around a point whose colours bound its own, and by how much


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
    low, high = find_color_range(view, projected.pixels)
    for _ in range(num_rounds):
        samples = samples + CORRECTION * _residuals(cloud, colors, placement, projected, view)
        samples = torch.minimum(torch.maximum(samples, low), high)
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

    Lids that are folded out of its sight get the skin around them, and what is seen of their folds
    a share of it: in a blink, the dark line of an open eye is drawn over all of the lid.

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
    lent = projected.fill(sample_picture(view.foreground, projected.pixels))
    hidden_lids = projected.is_folded & ~projected.is_visible
    colors = torch.where(hidden_lids[:, None], lent, gaussians.colors)
    gaussians = replace(gaussians, colors=colors)
    low, high = find_color_range(view, projected.pixels)
    strength = CORRECTION * _trust_samples(projected)[:, None]
    for _ in range(num_rounds):
        drawn, alphas = rasterize(placement.pose_gaussians(gaussians), view.cameras)
        missing = (view.foreground * alphas[0] - drawn[0]) * inside
        change = strength * sample_picture(missing, projected.pixels)
        bounded = (gaussians.colors + change).clamp(low, high)
        colors = torch.where(strength > 0, bounded, gaussians.colors)
        gaussians = replace(gaussians, colors=colors)
    folds = projected.is_folded & projected.is_visible & (projected.kinds == PointKind.SKIN)
    lighter = torch.lerp(gaussians.colors, lent, LID_SHARE).clamp(DARKEST, LIGHTEST)
    return replace(gaussians, colors=torch.where(folds[:, None], lighter, gaussians.colors))


def bound_shades(colors: Tensor, filled: Tensor, kinds: Tensor) -> Tensor:
    """Skin in the hue that it is lent, little darker or lighter. [N, 3]

    A decoder learns how the light of its training falls off around the cheek, and greys skin that
    stood in another light.

    Args:
        colors: Of the decoder. [N, 3]
        filled: Seen or lent. [N, 3]
        kinds: `PointKind`. [N]
    """
    luma = colors.new_tensor(LUMA)
    shades = (colors @ luma) / (filled @ luma).clamp_min(DARKEST)
    bounded = filled * shades.clamp(*SHADES)[:, None]
    return torch.where((kinds == PointKind.SKIN)[:, None], bounded.clamp(0, 1), colors)


def _trust_samples(projected: ProjectedPoints) -> Tensor:
    """How much of the residual at a point is its own, in [0, 1]. [N]

    Where skin grazes the sight, many points fall on one pixel: each would take all of its residual,
    and show specks as soon as the head turns.
    """
    own = projected.fill_table.weights[:, 0]
    return torch.where(projected.is_folded, 1.0, own) * projected.is_visible


def find_color_range(view: PortraitView, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The darkest and the lightest that the photograph shows around points. [N, 3] each

    Splats blur, so that their residuals sharpen: without bounds, a dark brow gets a white halo
    that shows as soon as the face moves.
    """
    planes, window = view.foreground.permute(2, 0, 1)[None], 2 * NEARBY + 1
    high = max_pool2d(planes, window, stride=1, padding=NEARBY)
    low = -max_pool2d(-planes, window, stride=1, padding=NEARBY)
    low, high = (sample_picture(plane[0].permute(1, 2, 0), pixels) for plane in (low, high))
    return (low - OVERSHOOT).clamp_min(DARKEST), (high + OVERSHOOT).clamp_max(LIGHTEST)


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
    """What has colours of its own where no photograph shows it: teeth and mouth."""
    visible, kinds = projected.is_visible, projected.kinds
    skin = samples[visible & (kinds == PointKind.SKIN)]
    colors = filled.clamp(0, 1)
    if not len(skin):
        return colors
    middle = skin.median(0).values
    # Between the teeth of a smile it would be painted white.
    colors[kinds == PointKind.MOUTH] = middle * middle.new_tensor(MOUTH_TINT)
    teeth = kinds == PointKind.TEETH
    hidden, seen = teeth & ~visible, samples[teeth & visible]
    if len(seen) < FEW_TEETH:
        colors[hidden] = (middle.mean() * middle.new_tensor(TEETH_TINT)).clamp(max=0.95)
    else:
        colors[hidden] = seen.median(0).values
    return colors
