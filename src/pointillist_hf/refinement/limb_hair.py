# SPDX-License-Identifier: Apache-2.0
"""Hair behind a cheek that turns out of sight, where the fitted head is a little too wide.

A thin strip of hair at the limb of the face lies on the rig there. Laid on the rig it would be a
dark patch of a centimetre when the head turns: at the limb a pixel is that much of skin.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.cameras import project_points
from ..portraits.portrait import CHIN
from ..rigs.head_rig import HeadRig
from .distance_maps import grow_mask, nearest_pixels
from .face_kinds import FaceKinds, PointKind
from .landmark_warp import unproject_shifts
from .mesh_pictures import at_pixels, draw_rig
from .outline import step_into
from .placement import Placement
from .portrait_view import PortraitView
from .surface_cloud import SurfaceCloud

LIMB = 12.0  # pixels of a frame of 384 inside the outline of the rig


@torch.no_grad()
def find_hair_behind(
    view: PortraitView, rig: HeadRig, face_kinds: FaceKinds, pixel_kinds: Tensor
) -> Tensor:
    """Pixels of hair that lies behind the limb of the face, though the rig is there. [H, W]

    Args:
        view: The photograph.
        rig: Fitted to it.
        face_kinds: Of the rig.
        pixel_kinds: `PointKind` of each pixel, -1 outside the subject. [H, W]
    """
    depth, face_ids = draw_rig(rig, view.rig_params, view.cameras)
    skin = (face_kinds.kinds == PointKind.SKIN)[face_ids.clamp_min(0)] & (face_ids >= 0)
    skin &= ~face_kinds.is_ear[face_ids.clamp_min(0)]
    above_chin = torch.arange(len(skin))[:, None] < float(view.landmarks[CHIN, 1])
    hair = (pixel_kinds == PointKind.HAIR) & skin & above_chin
    width = LIMB * len(skin) / 384
    in_front = hair & (nearest_pixels(~depth.isfinite())[0] > width)
    return hair & ~grow_mask(in_front, round(width) + 1)


def tuck_cheeks(
    cloud: SurfaceCloud,
    placement: Placement,
    view: PortraitView,
    face_kinds: FaceKinds,
    behind: Tensor,
) -> Tensor:
    """Centres of the points at rest, skin moved off the pixels of hair behind it. [N, 3]

    Args:
        cloud: N points.
        placement: Of these points in the pose of the view.
        view: The photograph.
        face_kinds: Of the rig.
        behind: See `find_hair_behind`. [H, W]
    """
    if not behind.any():
        return cloud.means
    faces = cloud.bindings
    moves = (face_kinds.kinds[faces] == PointKind.SKIN) & ~face_kinds.is_ear[faces]
    pixels, depths = project_points(placement.pose_means(cloud.means), view.cameras)
    moves &= at_pixels(behind, pixels[0])
    step = step_into(~behind & (view.matte > 0.5), pixels[0]) * moves[:, None]
    return cloud.means + placement.rest_vectors(unproject_shifts(step, depths[0], view))
