# SPDX-License-Identifier: Apache-2.0
"""What points turn out to be once a photograph has been seen: a collar, a bald head, a fringe."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rigs.head_rig import HeadRig
from .distance_maps import grow_mask
from .face_kinds import FaceKinds, PointKind, find_face_kinds
from .lids import LID, measure_blink
from .mesh_pictures import at_pixels, draw_rig, is_in_frame
from .neighbors import nearest_points
from .placement import Placement
from .portrait_view import PortraitView
from .projection import MIN_FACING, Sight, is_in_front, look_at_points
from .surface_cloud import SurfaceCloud

OUTER = (PointKind.SKIN, PointKind.HAIR, PointKind.CLOTH)  # one may lie where another is expected
NUM_VOTERS, ENOUGH = 15, 30  # points; fewer do not speak for their kind
SLIP, AWAY, BEHIND = 2e-3, -0.5, 8e-3  # metres that a fit errs; facing; metres out of sight
NEXT_TO = 0.015  # metres from what is seen: farther, who wears clothes wears them behind as well


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
    depth, _ = draw_rig(rig, view.rig_params, view.cameras)
    gaps = seen.depths - at_pixels(depth, seen.pixels)
    surface = torch.full_like(cloud.kinds, int(PointKind.SKIN))
    is_visible = is_in_front(gaps, seen.facing, surface, torch.zeros_like(seen.facing).bool())
    is_visible &= is_in_frame(seen.pixels, view.cameras, margin=1)
    seen_kinds = at_pixels(pixel_kinds, seen.pixels)
    is_covered = _find_covered(cloud, seen, gaps, pixel_kinds, find_face_kinds(rig))
    seen_kinds = torch.where(is_covered, int(PointKind.HAIR), seen_kinds)
    kinds = vote_kinds(cloud.means, cloud.kinds, is_visible | is_covered, seen_kinds)
    # Lashes look like hair.
    blink = measure_blink(cloud.points, rig, view.rig_params.betas)
    return torch.where(blink > LID, cloud.kinds, kinds)


def _find_covered(
    cloud: SurfaceCloud, seen: Sight, gaps: Tensor, pixel_kinds: Tensor, face_kinds: FaceKinds
) -> Tensor:
    """Temples and cheeks that turn out of sight right where hair begins: it lies on them. [N]

    A head that was fitted a little too wide shows a centimetre of bare temple there from the side.
    """
    slip = round(float(SLIP * seen.focal / seen.depths.median()))
    near_hair = at_pixels(grow_mask(pixel_kinds == PointKind.HAIR, max(slip, 1)), seen.pixels)
    ears = cloud.means[face_kinds.is_ear[cloud.bindings], 1]
    lowest = ears.amin() if len(ears) else -torch.inf
    may_be = face_kinds.is_anchor[cloud.bindings] & (cloud.means[:, 1] > lowest)
    may_be &= cloud.kinds == PointKind.SKIN
    turned = (seen.facing < MIN_FACING["surface"]) & (seen.facing > AWAY) & (gaps < BEHIND)
    return near_hair & may_be & turned


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
    expected, kinds = kinds, torch.where(told, seen_kinds, kinds)
    hidden = outer & ~told
    decided = kinds.clone()
    for kind in OUTER:
        # What is expected to be alike turns out alike: a scalp is as hairy behind as in front.
        like = told & (expected == kind)
        voters = like if int(like.sum()) >= ENOUGH else told
        asking = (hidden & (expected == kind)).nonzero()[:, 0]
        if len(asking) and voters.any():
            votes, distances = _ask_neighbors(means[asking], means[voters], kinds[voters])
            if kind == PointKind.CLOTH and int((kinds[voters] == kind).sum()) >= ENOUGH:
                votes[distances > NEXT_TO] = int(kind)
            decided[asking] = votes
    return decided


def _ask_neighbors(means: Tensor, voters: Tensor, votes: Tensor) -> tuple[Tensor, Tensor]:
    """The kind that most of the nearest voters have, mirrored or not; the nearest's distance."""
    both = torch.cat([voters, voters * voters.new_tensor([-1.0, 1.0, 1.0])])
    distances, found = nearest_points(means, both, NUM_VOTERS)
    chosen = torch.nn.functional.one_hot(votes[found % len(voters)], len(PointKind))
    return (chosen / (distances + 2e-3)[..., None]).sum(1).argmax(-1), distances[:, 0]
