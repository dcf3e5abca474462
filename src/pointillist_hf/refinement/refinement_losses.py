# SPDX-License-Identifier: Apache-2.0
"""What refinement compares: the photograph where it can be trusted, other views with themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.cameras import orbit_cameras
from ..geometry.structures import Cameras, Gaussians, TensorRecord
from ..portraits.portrait import CHIN
from ..rendering import rasterize
from ..rendering.similarity import structural_similarity
from ..rigs.head_rig import HeadRig
from .distance_maps import blur_picture
from .face_kinds import PointKind
from .portrait_view import PortraitView

L1_WEIGHT, SSIM_WEIGHT, ALPHA_WEIGHT = 0.8, 0.2, 0.2
ELSEWHERE = 0.4  # weight of what is neither face nor hair
BELOW_CHIN, FADE = 0.3, 0.05  # of the distance of the outer canthi: where the head ends
NUM_ANCHORS, WIDEST, HIGHEST, LOWEST = 16, 75.0, 20.0, -10.0  # degrees
ANCHOR_BLUR, ANCHOR_GREY = 1.2, 0.93


@dataclass(frozen=True)
class ViewTarget(TensorRecord):
    """One photograph as something to be drawn."""

    image: Tensor  # [H, W, 3] sRGB, the subject's colours carried outwards
    matte: Tensor  # [H, W, 1]
    weights: Tensor  # [H, W, 1] of colours
    alpha_weights: Tensor  # [H, W, 1]
    cameras: Cameras  # one


def build_target(view: PortraitView, pixel_kinds: Tensor) -> ViewTarget:
    """The photograph with weights: face and hair count most.

    Args:
        view: The photograph.
        pixel_kinds: `PointKind` of each pixel, -1 outside the subject. [H, W]
    """
    rows = (torch.arange(len(view.matte)) + 0.5)[:, None, None]
    end = view.landmarks[CHIN, 1] + BELOW_CHIN * view.eye_distance
    zone = torch.sigmoid((end - rows) / (FADE * view.eye_distance))
    head = (pixel_kinds == PointKind.SKIN) | (pixel_kinds == PointKind.HAIR)
    head = blur_picture(head.float()[..., None], 3.0)
    matte = view.matte[..., None]
    inside = view.inside.float()[..., None]
    weights = (zone * torch.maximum(head, 0.8 * (1 - matte)) + ELSEWHERE) * inside
    alpha_weights = zone * torch.maximum(head, 1 - matte) * inside
    return ViewTarget(view.foreground, matte, weights.clamp(max=1.1), alpha_weights, view.cameras)


def photograph_loss(gaussians: Gaussians, target: ViewTarget, background: Tensor) -> Tensor:
    """How far the posed gaussians are from the photograph, in front of a colour [3]."""
    # A colour that stayed would be painted on splats beyond the outline.
    images, alphas = rasterize(gaussians, target.cameras, backgrounds=background[None])
    wanted = torch.lerp(background.expand_as(target.image), target.image, target.matte)
    difference = ((images[0] - wanted).abs() * target.weights).mean()
    alike = structural_similarity(images * target.weights, (wanted * target.weights)[None])
    alpha = ((alphas[0] - target.matte).abs() * target.alpha_weights).mean()
    return L1_WEIGHT * difference + SSIM_WEIGHT * (1 - alike) + ALPHA_WEIGHT * alpha


@torch.no_grad()
def blending_weights(gaussians: Gaussians, target: ViewTarget) -> Tensor:
    """How much of the weighted photograph each gaussian makes, pixels. [N]"""
    with torch.enable_grad():
        colors = torch.ones_like(gaussians.colors, requires_grad=True)
        white = Gaussians(
            gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, colors
        )
        images, _ = rasterize(white, target.cameras)
        (sums,) = torch.autograd.grad((images[0, ..., :1] * target.weights).sum(), colors)
    return sums[:, 0]


@dataclass(frozen=True)
class AnchorViews(TensorRecord):
    """Views that shall stay as they are but for what the photograph shows better."""

    cameras: Cameras  # 16
    pictures: Tensor  # [16, h, w, 3] blurred


@torch.no_grad()
def build_anchors(
    gaussians: Gaussians, view: PortraitView, rig: HeadRig, generator: torch.Generator
) -> AnchorViews:
    """Views around the posed head, at half the size of the photograph.

    Args:
        gaussians: Posed, before refinement.
        view: The photograph.
        rig: Fitted to it.
        generator: Of the elevations and the order.
    """
    size = len(view.matte) // 2
    centre = rig(view.rig_params)[0].mean(0)
    fov = math.degrees(2 * math.atan(len(view.matte) / 2 / float(view.cameras.Ks[0, 0, 0])))
    azimuths = torch.linspace(-WIDEST, WIDEST, NUM_ANCHORS)
    azimuths = azimuths[torch.randperm(NUM_ANCHORS, generator=generator)]
    elevations = LOWEST + (HIGHEST - LOWEST) * torch.rand(NUM_ANCHORS, generator=generator)
    cameras = orbit_cameras(
        azimuths.tolist(),
        elevations.tolist(),
        fov=fov,
        target=centre.tolist(),
        width=size,
        height=size,
    ).to(gaussians.means.device)
    pictures = [_draw_blurred(gaussians, cameras[i : i + 1]) for i in range(NUM_ANCHORS)]
    return AnchorViews(cameras, torch.stack(pictures))


def anchor_loss(gaussians: Gaussians, anchors: AnchorViews, index: int) -> Tensor:
    """How much one of the views has changed."""
    picture = _draw_blurred(gaussians, anchors.cameras[index : index + 1])
    return (picture - anchors.pictures[index]).abs().mean()


def _draw_blurred(gaussians: Gaussians, cameras: Cameras) -> Tensor:
    backgrounds = gaussians.means.new_full((1, 3), ANCHOR_GREY)
    images, _ = rasterize(gaussians, cameras, backgrounds=backgrounds)
    return blur_picture(images[0], ANCHOR_BLUR)
