# SPDX-License-Identifier: Apache-2.0
"""What points turn out to be once a photograph has been seen: a collar, a bald head, a fringe."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rigs.head_rig import HeadRig
from .face_kinds import PointKind
from .lids import LID, measure_blink
from .neighbors import nearest_points
from .placement import Placement
from .portrait_view import PortraitView
from .projection import at_pixels, draw_depth, is_in_frame, is_in_front, look_at_points
from .surface_cloud import SurfaceCloud

OUTER = (PointKind.SKIN, PointKind.HAIR, PointKind.CLOTH)  # one may lie where another is expected
NUM_VOTERS = 9


@torch.no_grad()
def recognise_points(
    cloud: SurfaceCloud,
    placement: Placement,
    view: PortraitView,
    rig: HeadRig,
    pixel_kinds: Tensor,
) -> Tensor:
    """Kinds of points on the rig, by what is seen there or, where nothing is, next to there.

    Args:
        cloud: N points on the faces of the rig.
        placement: Of these points in the pose of the view.
        view: The photograph.
        rig: Fitted to it.
        pixel_kinds: `PointKind` of each pixel, -1 outside the subject. [H, W]

    Returns:
        [N]
    """
    seen = look_at_points(cloud.means, placement, cloud.normals, view.cameras)
    depth = draw_depth(rig, view.rig_params, view.cameras)
    gaps = seen.depths - at_pixels(depth, seen.pixels)
    surface = torch.full_like(cloud.kinds, int(PointKind.SKIN))
    is_visible = is_in_front(gaps, seen.facing, surface, torch.zeros_like(seen.facing).bool())
    is_visible &= is_in_frame(seen.pixels, view.cameras, margin=1)
    kinds = vote_kinds(cloud.means, cloud.kinds, is_visible, at_pixels(pixel_kinds, seen.pixels))
    # Lashes look like hair.
    blink = measure_blink(cloud.points, rig, view.rig_params.betas)
    return torch.where(blink > LID, cloud.kinds, kinds)


def vote_kinds(means: Tensor, kinds: Tensor, is_visible: Tensor, seen_kinds: Tensor) -> Tensor:
    """Kinds of the points, by what is seen there or, where nothing is, next to there.

    Args:
        means: At rest, metres. [N, 3]
        kinds: `PointKind` as expected. [N]
        is_visible: [N]
        seen_kinds: `PointKind` at each point's pixel; -1: not known. [N]
    """
    outer = torch.isin(kinds, kinds.new_tensor([int(kind) for kind in OUTER]))
    told = outer & is_visible & (seen_kinds >= 0)
    kinds = torch.where(told, seen_kinds, kinds)
    hidden = (outer & ~told).nonzero()[:, 0]
    voters = told.nonzero()[:, 0]
    if not len(hidden) or not len(voters):
        return kinds
    places = means[voters]
    both = torch.cat([places, places * places.new_tensor([-1.0, 1.0, 1.0])])
    distances, found = nearest_points(means[hidden], both, NUM_VOTERS)
    votes = torch.nn.functional.one_hot(kinds[voters][found % len(voters)], len(PointKind))
    strength = (votes / (distances + 2e-3)[..., None]).sum(1)
    kinds = kinds.clone()
    kinds[hidden] = strength.argmax(-1)
    return kinds
