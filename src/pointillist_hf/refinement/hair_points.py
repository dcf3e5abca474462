# SPDX-License-Identifier: Apache-2.0
"""Points of hair: those that the photograph shows, pixel by pixel, and those around the head."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.cameras import project_points
from ..geometry.triangles import triangle_frames
from ..rigs.head_rig import HeadRig
from .disc_layers import Discs, bring_to_rest, lay_discs
from .distance_maps import blur_picture, grow_mask, keep_large_parts, nearest_pixels, shrink_mask
from .face_kinds import FaceKinds, PointKind
from .hair_curtain import hang_curtain
from .hair_surface import (
    NASION,
    TEMPLE_FACING,
    HairSurface,
    find_hair_pixels,
    find_hanging_sides,
)
from .mesh_pictures import at_pixels, draw_mesh, draw_rig, is_in_frame
from .portrait_view import BROWS, PortraitView, metres_per_pixel
from .surface_cloud import SurfaceCloud

STRIDE = 2.6  # pixels between the points that the photograph shows
SPACING = 4.5e-3  # metres between those around the head
STRAND = 3.0  # length of a disc around the head over its width
SMALLEST_PART = 0.06  # of the squared distance of the outer canthi: less is no hair
RISE, FIRST_RISE, MOST_RISE = 0.8, 2.5e-3, 0.03  # in front of the skin: per metre from its border
SUNK = 2e-3  # metres below the surface, because a splat reaches beyond its middle
LOOSE = 0.02  # metres before the eyes: nothing hidden grows in the face
HALF = 0.5  # of `hairiness`: where hair ends


@torch.no_grad()
def grow_hair(
    view: PortraitView,
    rig: HeadRig,
    face_kinds: FaceKinds,
    pixel_kinds: Tensor,
    surface: HairSurface,
    density: float,
    behind: Tensor,
) -> SurfaceCloud:
    """All points of hair, at rest. behind: See `find_hair_behind`. [H, W]"""
    mask = _find_hair_mask(view, rig, pixel_kinds)
    shown = mask & (behind | ~_find_combed_back(view, rig, face_kinds, pixel_kinds))
    parts = [
        _points_in_sight(view, rig, shown, surface, density, behind),
        _points_around(view, rig, pixel_kinds, surface, density),
        hang_curtain(view, rig, face_kinds, pixel_kinds, surface, density),
    ]
    places, normals, radii = (torch.cat(part) for part in zip(*parts, strict=True))
    return bring_to_rest(places, normals, radii, view, rig, face_kinds)


def _find_hair_mask(view: PortraitView, rig: HeadRig, pixel_kinds: Tensor) -> Tensor:
    """Pixels to be covered with hair. [H, W]"""
    hair = pixel_kinds == PointKind.HAIR
    hair = shrink_mask(grow_mask(hair, 2), 2) & (pixel_kinds >= 0)
    hair = keep_large_parts(hair, int(SMALLEST_PART * view.eye_distance**2))
    on_mesh = draw_rig(rig, view.rig_params, view.cameras)[0].isfinite()
    above = torch.arange(len(hair))[:, None] < view.landmarks[list(BROWS), 1].mean()
    # What stands beside the head above the brows is hair or a hat, whatever its colour.
    return hair | (find_hair_pixels(view, pixel_kinds) & ~on_mesh & above)


def _find_combed_back(
    view: PortraitView, rig: HeadRig, face_kinds: FaceKinds, pixel_kinds: Tensor
) -> Tensor:
    """Pixels at the rim whose hair lies behind the temple that the rig has there. [H, W]

    In front of it, such hair would be a sideburn as wide as the temple.
    """
    vertices = rig(view.rig_params)[0]
    _, face_ids = draw_rig(rig, view.rig_params, view.cameras)
    frames, centres, _ = triangle_frames(vertices[rig.faces])
    rotation, shift = view.cameras.viewmats[0, :3, :3], view.cameras.viewmats[0, :3, 3]
    facing = (frames[..., 1] * normalize(-(shift @ rotation) - centres, dim=-1)).sum(-1)
    bare = (face_ids >= 0) & ~face_kinds.is_scalp[face_ids.clamp_min(0)]
    left_hangs, right_hangs = find_hanging_sides(view, rig, face_kinds, pixel_kinds)
    is_left = torch.arange(pixel_kinds.shape[1]) > view.landmarks[NASION, 0]
    turned = facing[face_ids.clamp_min(0)] > TEMPLE_FACING
    return bare & ~turned & ~torch.where(is_left, left_hangs, right_hangs)


def _points_in_sight(
    view: PortraitView,
    rig: HeadRig,
    mask: Tensor,
    surface: HairSurface,
    density: float,
    behind: Tensor,
) -> Discs:
    """A layer of points over the pixels of hair."""
    depth = _hair_depth(view, rig, mask, surface, behind)
    return lay_discs(depth, mask, view, STRIDE / math.sqrt(density) * len(mask) / 384)


def _hair_depth(
    view: PortraitView, rig: HeadRig, mask: Tensor, surface: HairSurface, behind: Tensor
) -> Tensor:
    """Depth of the hair at every pixel of the mask, smooth, just in front of the skin. [H, W]

    Behind the limb of the face it goes on as beside it, and comes no nearer than the skin.
    """
    skin, _ = draw_rig(rig, view.rig_params, view.cameras)
    places, triangles = surface.places().reshape(-1, 3), surface.trusted_triangles()
    depth, _ = draw_mesh(places, triangles, view.cameras)
    if not depth.isfinite().any():
        depth = skin
    _, known = nearest_pixels(depth.isfinite())
    depth = depth.flatten()[known]
    cheek = torch.where(behind, skin, 0)
    depth = torch.maximum(depth, cheek)
    on_skin = skin.isfinite() & ~behind
    metres = metres_per_pixel(view)
    from_edge, _ = nearest_pixels(~mask & (view.matte > 0.5))
    from_edge = from_edge.clamp(max=float(len(mask))) * metres
    rise = (FIRST_RISE + RISE * from_edge).clamp(max=MOST_RISE)
    skin = torch.where(on_skin, skin, 0)
    bounded = torch.maximum(torch.minimum(depth, skin - 2e-3), skin - rise)
    depth = torch.where(on_skin, bounded, depth)
    weight = mask.float()[..., None]
    smooth = blur_picture(depth[..., None] * weight, 1.5) / blur_picture(weight, 1.5).clamp_min(
        1e-6
    )
    smooth = torch.where(mask, smooth[..., 0], depth)
    return torch.where(on_skin, torch.minimum(smooth, skin - 1.5e-3), torch.maximum(smooth, cheek))


def _points_around(
    view: PortraitView,
    rig: HeadRig,
    pixel_kinds: Tensor,
    surface: HairSurface,
    density: float,
) -> Discs:
    """Points on the surface where the photograph does not see it."""
    directions = _spread_directions(SPACING / math.sqrt(density))
    radii = surface.look_up(surface.radii, directions)
    offsets = directions * radii[:, None]
    places = surface.centre + offsets @ surface.axes.T
    normals = _surface_normals(surface, directions) @ surface.axes.T
    pixels = project_points(places, view.cameras)[0][0]
    inner = shrink_mask(pixel_kinds >= 0)
    camera = -(view.cameras.viewmats[0, :3, 3] @ view.cameras.viewmats[0, :3, :3])
    facing = (normals * normalize(camera - places, dim=-1)).sum(-1)
    hairiness = surface.look_up(surface.hairiness, directions)
    # A straight edge gives a helmet away.
    ragged = 0.3 * (_noise(len(directions)) - 0.5)
    hidden = facing < 0.25
    in_face = (offsets[:, 2] > 0.035) & (facing < -0.05)
    inside = ~is_in_frame(pixels, view.cameras) | at_pixels(inner, pixels)
    keep = (hairiness + ragged > HALF) & hidden & inside & ~in_face
    size = 0.7 * SPACING / math.sqrt(density)
    discs = torch.stack(
        [STRAND * size * torch.ones(len(places)), size * torch.ones(len(places))], -1
    )
    return (places - SUNK * normals)[keep], normals[keep], discs[keep]


def _noise(count: int) -> Tensor:
    """Numbers in [0, 1) without order, the same every time. [count]"""
    return torch.rand(count, generator=torch.Generator().manual_seed(0))


def _spread_directions(spacing: float) -> Tensor:
    """Directions all over the sphere, evenly, in the axes of the head. [K, 3]"""
    count = int(4 * math.pi * 0.115**2 / spacing**2)
    place = torch.arange(count, dtype=torch.float64) + 0.5
    y = 1 - 2 * place / count
    angle = place * math.pi * (3 - math.sqrt(5))
    ring = (1 - y * y).sqrt()
    return torch.stack([ring * angle.sin(), y, ring * angle.cos()], dim=-1).float()


def _surface_normals(surface: HairSurface, directions: Tensor) -> Tensor:
    """Outward normals in the axes of the head, by differences. [K, 3]"""
    up = directions.new_tensor([0.02, 1.0, 0.03]).expand_as(directions)
    first = normalize(torch.linalg.cross(up, directions), dim=-1)
    second = torch.linalg.cross(directions, first)

    def place(turned: Tensor) -> Tensor:
        turned = normalize(turned, dim=-1)
        return turned * surface.look_up(surface.radii, turned)[:, None]

    step = 0.06
    along = place(directions + step * first) - place(directions - step * first)
    across = place(directions + step * second) - place(directions - step * second)
    return normalize(torch.linalg.cross(along, across), dim=-1)
