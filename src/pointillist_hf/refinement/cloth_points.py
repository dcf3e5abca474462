# SPDX-License-Identifier: Apache-2.0
"""Points of clothes as the photograph shows them: no rig knows of collars and hoods."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..rigs.head_rig import HeadRig
from .disc_layers import bring_to_rest, empty_cloud, lay_discs
from .distance_maps import blur_picture, grow_mask, keep_large_parts, nearest_pixels
from .face_kinds import FaceKinds, PointKind
from .mesh_pictures import draw_rig
from .portrait_view import PortraitView, metres_per_pixel
from .surface_cloud import SurfaceCloud

STRIDE = 3.1  # pixels of a frame of 384 between points
SMALLEST_PART = 0.02  # of the squared distance of the outer canthi
REACH = 0.06  # metres beside the rig: farther lies what is unknown
BORDER = 2  # pixels of a frame of 384 beside bare skin, over which discs reach by themselves
ABOVE_SKIN = 8e-3  # metres: cloth is thick, and the body below must not show
LOOSE, SMOOTH = 12.0, 6.0  # pixels of a frame of 384: how far cloth spans hollows, and creases


@torch.no_grad()
def lay_cloth(
    view: PortraitView, rig: HeadRig, face_kinds: FaceKinds, pixel_kinds: Tensor, density: float
) -> SurfaceCloud:
    """A layer of points over the pixels of clothes, at rest.

    Args:
        view: The photograph.
        rig: Fitted to it.
        face_kinds: Of the rig.
        pixel_kinds: `PointKind` of each pixel, -1 outside the subject. [H, W]
        density: Over the usual number of points.
    """
    depth, face_ids = draw_rig(rig, view.rig_params, view.cameras)
    # Beside a raised chin the nearest of the rig would be the chin.
    on_body = (face_ids >= 0) & face_kinds.is_anchor[face_ids.clamp_min(0)]
    metres, scale = metres_per_pixel(view), len(pixel_kinds) / 384
    distances, nearest = nearest_pixels(on_body)
    cloth = (pixel_kinds == PointKind.CLOTH) & view.inside & (distances * metres < REACH)
    bare = (pixel_kinds == PointKind.SKIN) | (pixel_kinds == PointKind.HAIR)
    cloth &= ~grow_mask(bare, max(1, round(BORDER * scale)))
    cloth = keep_large_parts(cloth, int(SMALLEST_PART * view.eye_distance**2))
    if not cloth.any():
        return empty_cloud()
    loose = depth.flatten()[nearest] + metres * distances
    loose = blur_picture(loose[..., None], LOOSE * scale)[..., 0]
    depth = torch.minimum(loose, depth) - ABOVE_SKIN
    depth = blur_picture(depth[..., None], SMOOTH * scale)[..., 0]
    discs = lay_discs(depth, cloth, view, STRIDE / math.sqrt(density) * scale)
    return bring_to_rest(*discs, view, rig, face_kinds, PointKind.CLOTH)
