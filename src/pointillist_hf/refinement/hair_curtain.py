# SPDX-License-Identifier: Apache-2.0
"""Hair behind the neck, where it hangs beside it: a curtain around the back of the head.

No portrait shows it, and the surface around the skull ends at the nape. It falls straight down from
where that surface is widest, lies on the shoulders, and is as long as it is seen on either side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.cameras import project_points
from ..geometry.triangles import triangle_frames
from ..portraits.portrait import CHIN
from ..rigs.head_rig import HeadRig
from .disc_layers import Discs
from .distance_maps import shrink_mask
from .face_kinds import FaceKinds, PointKind
from .hair_surface import NOSE_TIP, NUM_AZIMUTH, HairSurface, direction_grid
from .mesh_pictures import at_pixels, draw_rig, is_in_frame
from .neighbors import nearest_points
from .portrait_view import PortraitView, metres_per_pixel

LEFT_CHEEK, RIGHT_CHEEK = 454, 234  # landmarks: farther out hangs what is no beard
FEWEST, GAP = 0.03, 0.12  # of the eye distance: of hair in a row, and of rows without
# Metres above the middle of the skull: hair that ends there is not long; less below is no curtain.
TOP, SHORTEST = -0.03, 0.02
TURNED = 0.35  # sideways part of the view, from which the far side is not seen
ACROSS, DOWN, STRAND = 4.5e-3, 9e-3, 3.0  # metres between points; length of a disc over its width
CLEAR = 6e-3  # metres above shoulders and back
FLUFF, RAGGED = 2e-3, 0.012  # metres by which points lie apart in depth, and ends in height
# Hair falls towards the neck: share of the distance from the axis of the head, and metres of the
# fall in which that is. It thins out before it ends, metres.
INWARDS, FALL, THIN = 0.15, 0.1, 0.012
HALF = 0.5  # of `hairiness`


@torch.no_grad()
def hang_curtain(
    view: PortraitView,
    rig: HeadRig,
    face_kinds: FaceKinds,
    pixel_kinds: Tensor,
    surface: HairSurface,
    density: float,
) -> Discs:
    """Discs in the pose.

    Args:
        view: The photograph.
        rig: Fitted to it.
        face_kinds: Of the rig.
        pixel_kinds: `PointKind` of each pixel, -1 outside the subject. [H, W]
        surface: Of the hair around the skull.
        density: Over the usual number of points.
    """
    ends = find_ends(view, pixel_kinds, surface)
    down = view.cameras.viewmats[0, 1, :3] @ surface.axes
    local = _fall_down(surface, ends, down, density)
    places = surface.centre + local @ surface.axes.T
    places = _lay_on_skin(places, view, rig, face_kinds)
    away = normalize(local * local.new_tensor([1.0, 0.0, 1.0]), dim=-1) @ surface.axes.T
    kept = _is_hidden(places, view, rig, pixel_kinds)
    places, away = places[kept], away[kept]
    width = 0.7 * ACROSS / math.sqrt(density)
    radii = places.new_tensor([STRAND * width, width]).expand(len(places), 2)
    return places, away, radii


def find_ends(view: PortraitView, pixel_kinds: Tensor, surface: HairSurface) -> Tensor:
    """Heights above the middle of the skull at which hair ends beside the neck. [2] left, right

    As the camera sees them. `TOP` where none hangs. A side that is turned away ends as the other.
    """
    rows = [_find_last_row(view, pixel_kinds, is_left) for is_left in (True, False)]
    middle = float(project_points(surface.centre[None], view.cameras)[0][0, 0, 1])
    heights = [TOP if row is None else (middle - row) * metres_per_pixel(view) for row in rows]
    camera = -(view.cameras.viewmats[0, :3, 3] @ view.cameras.viewmats[0, :3, :3])
    sideways = float(normalize(camera - surface.centre, dim=0) @ surface.axes[:, 0])
    if abs(sideways) > TURNED:
        near = int(sideways < 0)
        heights[1 - near] = min(heights) if rows[1 - near] is not None else heights[near]
    return torch.tensor(heights).clamp(max=TOP)


def _find_last_row(view: PortraitView, pixel_kinds: Tensor, is_left: bool) -> int | None:
    """The row at which the hair beside one cheek ends, if it hangs as low as the mouth."""
    cheek = view.landmarks[LEFT_CHEEK if is_left else RIGHT_CHEEK, 0]
    columns = torch.arange(pixel_kinds.shape[1])
    outside = columns > cheek if is_left else columns < cheek
    counts = ((pixel_kinds == PointKind.HAIR) & outside).sum(1)
    first = int(view.landmarks[[NOSE_TIP, CHIN], 1].mean())
    hairy = (counts[max(first, 0) :] >= FEWEST * view.eye_distance).nonzero()[:, 0]
    gap = GAP * view.eye_distance
    if not len(hairy) or hairy[0] > gap:
        return None
    breaks = (hairy.diff() > gap).nonzero()[:, 0]
    return max(first, 0) + int(hairy[breaks[0] if len(breaks) else -1])


def _fall_down(surface: HairSurface, ends: Tensor, down: Tensor, density: float) -> Tensor:
    """Places in the axes of the head, from where the hair is widest down to the ends. [K, 3]"""
    ring = _find_ring(surface)
    if len(ring) < 2:
        return ring[:0]
    columns = _spread_evenly(ring, ACROSS / math.sqrt(density))
    left = 0.5 + 0.5 * columns[:, 0] / columns[:, 0].abs().amax().clamp_min(1e-6)
    end, top = torch.lerp(ends[1], ends[0], left), -(columns @ down)
    step = DOWN / math.sqrt(density)
    count = max(0, int((top.amax() - ends.amin() + RAGGED) / step) + 2)
    # In no order, the same every time.
    noise = torch.rand(2, len(columns), count, generator=torch.Generator().manual_seed(0)) - 0.5
    drop = step * (torch.arange(count) + noise[0]).clamp_min(0)
    ragged = (end + THIN + 2 * RAGGED * noise[1, :, :1].mean(1))[:, None]
    kept = (top[:, None] - drop > ragged) & (end < TOP - SHORTEST)[:, None]
    out = normalize(columns * columns.new_tensor([1.0, 0.0, 1.0]), dim=-1)
    spread = columns[:, None] + 2 * FLUFF * noise[1][..., None] * out[:, None]
    places = (spread + drop[..., None] * down)[kept]
    share = 1 - INWARDS * (places @ down / FALL).clamp(0, 1)
    return places * torch.stack([share, torch.ones_like(share), share], dim=-1)


def _find_ring(surface: HairSurface) -> Tensor:
    """Where the hair behind the ears is widest, from left to right. [A, 3] metres

    In the axes of the head; not where there is none.
    """
    local = surface.radii[..., None] * direction_grid()
    width = local[..., ::2].norm(dim=-1)
    width = torch.where(surface.hairiness > HALF, width, 0)
    row = width.argmax(0)
    column = torch.arange(NUM_AZIMUTH)
    places = local[row, column]
    order = (torch.atan2(places[:, 2], places[:, 0]).neg() % (2 * math.pi)).argsort()
    places, width = places[order], width[row, column][order]
    return places[(places[:, 2] < 0) & (width > 0)]


def _spread_evenly(line: Tensor, spacing: float) -> Tensor:
    """Places along a line of corners, so far apart as seen from above. [A, 3] -> [C, 3]"""
    lengths = (line[1:, ::2] - line[:-1, ::2]).norm(dim=-1)
    ends = lengths.cumsum(0)
    along = torch.arange(0, float(ends[-1]), spacing)
    index = torch.searchsorted(ends, along).clamp(max=len(lengths) - 1)
    share = 1 - (ends[index] - along) / lengths[index].clamp_min(1e-9)
    return torch.lerp(line[index], line[index + 1], share[:, None])


def _lay_on_skin(places: Tensor, view: PortraitView, rig: HeadRig, face_kinds: FaceKinds) -> Tensor:
    """The places, those that are in the shoulders or the back lifted onto them. [K, 3]"""
    outer = (face_kinds.is_anchor | (face_kinds.kinds == PointKind.CLOTH)).nonzero()[:, 0]
    if not len(places) or not len(outer):
        return places
    frames, centres, _ = triangle_frames(rig(view.rig_params)[0][rig.faces[outer]])
    for _ in range(2):
        _, found = nearest_points(places, centres, 1)
        normal = frames[found[:, 0], :, 1]
        height = ((places - centres[found[:, 0]]) * normal).sum(-1, keepdim=True)
        places = places + (CLEAR - height).clamp_min(0) * normal
    return places


def _is_hidden(places: Tensor, view: PortraitView, rig: HeadRig, pixel_kinds: Tensor) -> Tensor:
    """Places behind the rig, or beside it where hair or clothes are seen. [K, 3] -> [K]"""
    pixels, depths = project_points(places, view.cameras)
    skin, _ = draw_rig(rig, view.rig_params, view.cameras)
    nearest = at_pixels(skin, pixels[0])
    behind, on_rig = depths[0] > nearest, nearest.isfinite()
    shown = at_pixels(pixel_kinds, pixels[0])
    beside = (shown == PointKind.HAIR) | (shown == PointKind.CLOTH)
    inside = at_pixels(shrink_mask(pixel_kinds >= 0), pixels[0])
    return is_in_frame(pixels[0], view.cameras) & inside & torch.where(on_rig, behind, beside)
