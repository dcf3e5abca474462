# SPDX-License-Identifier: Apache-2.0
"""Splats held against the matte: a rim that shines through, a strand that sticks out."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.structures import CanonicalPoints, Gaussians
from ..rendering import rasterize
from ..rigs.head_rig import HeadRig
from .placement import Placement, place_points
from .portrait_view import PortraitView

THICKER, THINNER = 5.0, 8.0  # logits of a splat whose pixels all lack, or should lack, the subject
FULLY_SEEN = 0.3  # pixels from which a splat follows in full
FAINTEST, MOST_OPAQUE = 0.01, 0.99
LARGEST_GROWTH = 0.7  # of the logarithm of a scale


@torch.no_grad()
def correct_coverage(
    gaussians: Gaussians,
    bindings: Tensor,
    view: PortraitView,
    rig: HeadRig,
    *,
    thinning: Tensor | float = 1.0,
    num_rounds: int = 3,
) -> Gaussians:
    """Splats that together are where the matte is, as far as the photograph shows them.

    Each splat becomes as opaque as its pixels lack, and grows along each of its axes by what the
    pixels lack that it would reach. What lies behind others stays as it is.

    Args:
        gaussians: Canonical, N of them.
        bindings: The face of each. [N]
        view: The photograph.
        rig: Of the bindings.
        thinning: How much of it a splat follows that should become fainter. [N]
        num_rounds: How often the alpha is compared with the matte.
    """
    placement = place_points(CanonicalPoints(gaussians.means, bindings), rig, view.rig_params)
    start = gaussians.scales.log()
    for _ in range(num_rounds):
        thicker, growth = _measure_gaps(gaussians, placement, view)
        thicker = torch.where(thicker < 0, thinning * thicker, thicker)
        logits = torch.logit(gaussians.opacities.clamp(FAINTEST, MOST_OPAQUE)) + thicker
        opacities = torch.sigmoid(logits).clamp(FAINTEST, MOST_OPAQUE)
        grown = (gaussians.scales.log() + growth - start).clamp(-LARGEST_GROWTH, LARGEST_GROWTH)
        gaussians = replace(
            gaussians,
            opacities=torch.where(thicker == 0, gaussians.opacities, opacities),
            scales=(start + grown).exp(),
        )
    return gaussians


def _measure_gaps(
    gaussians: Gaussians, placement: Placement, view: PortraitView
) -> tuple[Tensor, Tensor]:
    """Changes of opacity, logits [N], and of scale, logarithms [N, 3]."""
    posed = placement.pose_gaussians(gaussians)
    inside = view.inside[..., None].to(posed.means)
    with torch.enable_grad():
        # The picture is linear in the colours: its derivative holds the blending weights.
        colors = torch.ones_like(posed.colors, requires_grad=True)
        sizes = posed.scales.log().requires_grad_()
        drawn, alphas = rasterize(replace(posed, colors=colors, scales=sizes.exp()), view.cameras)
        gaps = (view.matte[..., None] - alphas[0].detach()) * inside
        maps = torch.cat([gaps.clamp(min=0), gaps.clamp(max=0), torch.ones_like(gaps)], dim=-1)
        (made,) = torch.autograd.grad((drawn[0] * maps).sum(), colors, retain_graph=True)
        (wanted,) = torch.autograd.grad((alphas * gaps).sum(), sizes, retain_graph=True)
        (gained,) = torch.autograd.grad((alphas * inside).sum(), sizes)
    thicker = THICKER * made[:, 0] + THINNER * made[:, 1]
    return thicker / made[:, 2].clamp(min=FULLY_SEEN), wanted / gained.clamp(min=FULLY_SEEN)
