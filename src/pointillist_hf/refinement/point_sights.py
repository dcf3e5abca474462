# SPDX-License-Identifier: Apache-2.0
"""What the Gaussian decoder is told of points in a photograph, see `PointSights`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from ..models.modeling_gaussian_decoder import PointSights
from ..rigs.head_rig import HeadRig
from .coloring import color_the_unseen
from .face_kinds import PointKind, find_face_kinds
from .portrait_view import PortraitView, sample_picture
from .projection import ProjectedPoints
from .surface_cloud import SurfaceCloud

POOLING = 4  # pixels that the coarse sample averages, across and down
# Lengths at which features are about one, metres.
SPACING, DEPTH_GAP, SMALL_GAP, FAR_FROM_BORDER, NEAR_BORDER = 3e-3, 0.04, 3e-3, 0.02, 6e-3
NUM_SAMPLES = 4
NUM_FEATURES = 17 + len(PointKind)
NUM_SIGHT_FEATURES = NUM_FEATURES + 3 * NUM_SAMPLES


def see_points(
    cloud: SurfaceCloud, projected: ProjectedPoints, view: PortraitView, rig: HeadRig
) -> PointSights:
    """What the points of a cloud show in a photograph."""
    return PointSights(
        features=describe_points(cloud, projected, view, rig),
        samples=sample_colors(projected, view.foreground),
        quats=cloud.quats,
        scales=cloud.scales,
    )


def describe_points(
    cloud: SurfaceCloud, projected: ProjectedPoints, view: PortraitView, rig: HeadRig
) -> Tensor:
    """How each point is seen, in numbers of about one; colours are not among them. [N, K]"""
    face_kinds = find_face_kinds(rig)
    pixels_per_metre = view.cameras.Ks[0, 0, 0] / projected.depths.median()
    border = projected.matte_distances / pixels_per_metre
    gaps = projected.depth_gaps
    visible = projected.is_visible.to(gaps)
    columns = [
        projected.facing,
        visible,
        visible[projected.mirror_ids],
        projected.fill_table.weights[:, 0],
        projected.in_frame.to(gaps),
        (gaps / DEPTH_GAP).clamp(-0.1, 2),
        (gaps.clamp_min(0) / SMALL_GAP).log1p().clamp(max=4),
        (border / FAR_FROM_BORDER).clamp(-1, 3),
        torch.tanh(border / NEAR_BORDER),
        torch.log(projected.spacings / SPACING),
        face_kinds.is_lid[cloud.bindings].to(gaps),
        face_kinds.is_ear[cloud.bindings].to(gaps),
    ]
    kinds = one_hot(projected.kinds.long(), len(PointKind)).to(gaps)
    return torch.cat(
        [torch.stack(columns, dim=-1), cloud.normals, projected.normals[:, 1:], kinds], dim=-1
    )


def sample_colors(projected: ProjectedPoints, foreground: Tensor) -> Tensor:
    """Colours of each point: lent or seen, its own pixel's, its surroundings', its mirror's.

    Args:
        projected: The points in the photograph.
        foreground: Of the `PortraitView`, or a picture like it. [H, W, 3]

    Returns:
        [N, 4, 3]
    """
    own = sample_picture(foreground, projected.pixels)
    coarse = avg_pool2d(foreground.permute(2, 0, 1)[None], POOLING, ceil_mode=True)
    around = sample_picture(coarse[0].permute(1, 2, 0), projected.pixels / POOLING)
    filled = color_the_unseen(projected.fill(own), own, projected)
    return torch.stack([filled, own, around, own[projected.mirror_ids]], dim=1)
