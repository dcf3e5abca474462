# SPDX-License-Identifier: Apache-2.0
"""Splats about as large as their neighbours are far.

Between smaller ones others show from near: a photograph of a few hundred pixels does not tell dots
from a surface, whoever comes nearer does. Larger ones stand out from hair as a halo and blur cloth.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.structures import Gaussians
from .face_kinds import PointKind
from .neighbors import nearest_points

TOUCHING = 0.6  # standard deviation over the distance of neighbours, at which a surface is closed
MOST_GROWN = 3.0  # times its largest axis, beyond which no splat grows to touch others
LOOSE, FINEST = 1.2, 1e-3  # the same of hair, at most; metres that any splat of it may measure
AWAY, MOST_SOLID = -0.2, 0.95  # cosine to the camera beyond which hair is not seen; its opacity
TIGHT = 0.85  # the same of cloth that the photograph shows
MOST_LAID = 3.0  # distance of neighbours over its size, from which a splat of cloth is lonely
CLOSED = (PointKind.SKIN, PointKind.EYE, PointKind.TEETH)
NUM_NEIGHBORS = 4


@torch.no_grad()
def measure_spacings(means: Tensor, kinds: Tensor) -> Tensor:
    """Mean distance of each point from the nearest of its kind, metres. [N]

    Args:
        means: Places at rest. [N, 3]
        kinds: `PointKind` of each. [N]
    """
    spacings = torch.zeros_like(means[:, 0])
    for kind in kinds.unique():
        own = (kinds == kind).nonzero()[:, 0]
        distances, _ = nearest_points(means[own].cpu(), means[own].cpu(), 1 + NUM_NEIGHBORS)
        if distances.shape[1] > 1:
            # Each point is the nearest to itself.
            spacings[own] = distances[:, 1:].mean(1).to(means)
    return spacings


def smallest_scales(gaussians: Gaussians, kinds: Tensor, spacings: Tensor) -> Tensor:
    """The least that each axis may measure, metres; 0 for the thinnest. [N, 3]

    Args:
        gaussians: Canonical, N of them.
        kinds: `PointKind` of each; hair may have gaps, and cloth see `fit_cloth`. [N]
        spacings: Of `measure_spacings`. [N]
    """
    is_closed = torch.isin(kinds, torch.tensor(CLOSED, device=kinds.device))
    least = TOUCHING * spacings * is_closed
    least = least.minimum(MOST_GROWN * gaussians.scales.amax(-1))
    return _spare_thinnest(least, gaussians)


def close_gaps(gaussians: Gaussians, kinds: Tensor, spacings: Tensor) -> Gaussians:
    """Splats that leave no gap where there is a surface, and no halo around hair.

    Args:
        gaussians: As decoded, N of them.
        kinds: `PointKind` of each. [N]
        spacings: Of `measure_spacings`. [N]
    """
    scales = torch.maximum(gaussians.scales, smallest_scales(gaussians, kinds, spacings))
    reach = (LOOSE * spacings).clamp_min(FINEST)
    largest = torch.where(kinds == PointKind.HAIR, reach, torch.inf)
    return replace(gaussians, scales=torch.minimum(scales, largest[:, None]))


def close_back(gaussians: Gaussians, kinds: Tensor, spacings: Tensor, facing: Tensor) -> Gaussians:
    """Hair behind the head that hides what is below it: the face, from within.

    Strands are learned where a photograph shows them, in front of hair; behind there is one layer.

    Args:
        gaussians: As decoded, N of them.
        kinds: `PointKind` of each. [N]
        spacings: Of `measure_spacings`. [N]
        facing: Cosine between their normals and the way to the camera. [N]
    """
    behind = (kinds == PointKind.HAIR) & (facing < AWAY)
    scales = gaussians.scales.maximum(_spare_thinnest(TOUCHING * spacings * behind, gaussians))
    solid = gaussians.opacities.clamp(min=MOST_SOLID)
    return replace(
        gaussians, scales=scales, opacities=torch.where(behind, solid, gaussians.opacities)
    )


def fit_cloth(
    gaussians: Gaussians,
    kinds: Tensor,
    spacings: Tensor,
    is_shown: Tensor,
    allowed: Tensor,
    laid: Tensor,
) -> Gaussians:
    """Cloth in the photograph is closed and keeps to its own pixels: its stripes do not blur.

    Args:
        gaussians: As decoded, N of them.
        kinds: `PointKind` of each. [N]
        spacings: Of `measure_spacings`. [N]
        is_shown: Which project into the subject. [N]
        allowed: What each may measure although its neighbours are nearer, metres. [N]
        laid: What each was laid out to measure, metres: a lonely one does not reach far. [N]
    """
    own = is_shown & (kinds == PointKind.CLOTH)
    spacings = spacings.minimum(MOST_LAID * laid)
    reach = torch.maximum(TIGHT * spacings, allowed).clamp_min(FINEST)
    largest = torch.where(own, reach, torch.inf)
    least = _spare_thinnest(TOUCHING * spacings * own, gaussians)
    scales = torch.maximum(gaussians.scales, least).minimum(largest[:, None])
    return replace(gaussians, scales=scales)


def _spare_thinnest(least: Tensor, gaussians: Gaussians) -> Tensor:
    """The least that each axis may measure, 0 for the thinnest. [N] -> [N, 3]"""
    thinnest = gaussians.scales.argmin(-1, keepdim=True)
    return least[:, None].expand(-1, 3).scatter(1, thinnest, 0.0)
