# SPDX-License-Identifier: Apache-2.0
"""A cloud that ends where the subject ends: what sticks out comes in, what is bare is covered."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.cameras import project_points
from ..geometry.rotations import quat_multiply, quat_to_matrix
from ..portraits.portrait import CHIN
from ..rendering import rasterize
from ..rigs.head_rig import HeadRig
from .disc_layers import bring_to_rest, lay_lattice, unproject
from .distance_maps import keep_large_parts, nearest_pixels, shrink_mask, signed_distances
from .face_kinds import FaceKinds, PointKind
from .landmark_warp import unproject_shifts
from .mesh_pictures import at_pixels, draw_rig, is_in_frame
from .placement import Placement, place_points
from .portrait_view import PortraitView, metres_per_pixel
from .surface_cloud import SurfaceCloud

MARGIN = 1.0  # pixels inside the border of the matte, where points beyond it are brought
LEAST_RADIUS, LEAST_SHARE = 0.7, 0.1  # pixels; of its size that a disc keeps
REACH = 2.5  # standard deviations of a disc that stay in the matte
PIXEL = 0.3  # variance in square pixels that drawing adds to every disc
MAX_STEP = 4.0  # pixels by which a disc that reaches over the border comes in
BARE = 0.5  # of alpha: below, a pixel of the subject is not covered
SMALLEST_PART = 0.01  # of the squared distance of the outer canthi
STRIDE = 4.6  # pixels between the points that cover it
NEAR_HEAD, NEAR_BODY = 0.012, 0.035  # metres from what is covered: farther lies what is unknown
LOWEST, MIXED = 0.1, 0.3  # of the frame above its end; deviation of the colours of a pattern
NECK = 0.45  # distances of the outer canthi below the chin, where skin ends with the clothes
WIDER = 0.35  # of the clothes above its end, beside the rig
RECEDING = 0.7  # how far behind its neighbours a bare pixel lies, per distance from them


def keep_in_matte(cloud: SurfaceCloud, view: PortraitView, rig: HeadRig) -> SurfaceCloud:
    """The cloud within the subject's outline, and its discs too.

    Below the photograph shoulders are as wide as at its lower edge.
    """
    placement = place_points(cloud.points, rig, view.rig_params)
    pixels, depths = project_points(placement.pose_means(cloud.means), view.cameras)
    pixels, depths = pixels[0], depths[0]
    shown = is_in_frame(pixels, view.cameras, margin=0)
    step = step_into((view.matte > 0.5) | ~view.inside, pixels) * shown[:, None]
    border = _to_places(at_pixels(nearest_pixels(view.inside)[1], pixels), view.inside)
    below = ~shown & (pixels[:, 1] > view.cameras.height) & (cloud.kinds != PointKind.HAIR)
    step = step + step_into((view.matte > 0.5) & view.inside, border) * below[:, None]
    shift = unproject_shifts(step, depths, view)
    scales, inwards = _fit_discs(cloud, placement, pixels + step, depths, view)
    shift = shift + unproject_shifts(inwards, depths, view)
    return replace(cloud, means=cloud.means + placement.rest_vectors(shift), scales=scales)


def end_with_photograph(
    cloud: SurfaceCloud, view: PortraitView, rig: HeadRig, pixel_kinds: Tensor
) -> SurfaceCloud:
    """The cloud without what lies below the photograph of clothes of many colours or another cut.

    A plain shirt goes on as it is. A pattern does not: its mean would be a grey band. Nor do
    shoulders that are wider than the rig's: they would stand out above it.
    """
    rows = torch.arange(view.cameras.height)[:, None]
    end = (view.inside * (rows + 1)).amax(0)
    lowest = (rows >= end - LOWEST * len(rows)) & (rows < end)
    lowest &= pixel_kinds == PointKind.CLOTH
    colors = view.foreground[lowest]
    beside = ~draw_rig(rig, view.rig_params, view.cameras)[0].isfinite()
    if not len(colors) or (
        colors.var(0, correction=0).sum().sqrt() < MIXED and beside[lowest].float().mean() < WIDER
    ):
        return cloud
    placement = place_points(cloud.points, rig, view.rig_params)
    pixels, _ = project_points(placement.pose_means(cloud.means), view.cameras)
    columns = pixels[0, :, 0].long().clamp(0, view.cameras.width - 1)
    # Beside the photograph, it ends where it does in the nearest column.
    shown = end.nonzero()[:, 0]
    nearest = shown[(torch.arange(len(end))[:, None] - shown).abs().argmin(1)]
    below = pixels[0, :, 1] > end[nearest][columns]
    chest = pixels[0, :, 1] > float(view.landmarks[CHIN, 1]) + NECK * view.eye_distance
    ends = (cloud.kinds == PointKind.CLOTH) | ((cloud.kinds == PointKind.SKIN) & chest)
    return cloud[~(below & ends)]


def step_into(mask: Tensor, pixels: Tensor) -> Tensor:
    """From places outside a mask [H, W] to a little inside of it, zero within. [N, 2]"""
    distances, nearest = nearest_pixels(mask)
    step = _to_places(at_pixels(nearest, pixels), mask) - pixels
    step = step + MARGIN * normalize(step, dim=-1)
    return step * (at_pixels(distances, pixels) > 0)[:, None]


def _to_places(ids: Tensor, mask: Tensor) -> Tensor:
    """Middles of pixels that are numbered row by row. [N] -> [N, 2]"""
    width = mask.shape[1]
    return torch.stack([ids % width, ids // width], dim=-1) + 0.5


def _fit_discs(
    cloud: SurfaceCloud, placement: Placement, pixels: Tensor, depths: Tensor, view: PortraitView
) -> tuple[Tensor, Tensor]:
    """Scales [N, 3] and steps in pixels [N, 2] such that no disc reaches over the border."""
    distances = signed_distances((view.matte > 0.5) | ~view.inside)
    room = at_pixels(distances, pixels).clamp_min(LEAST_RADIUS)
    room = torch.where(is_in_frame(pixels, view.cameras, margin=0), room, torch.inf)[:, None]
    outward = normalize(-torch.stack(torch.gradient(distances)[::-1]), dim=0)
    outward = torch.stack([at_pixels(plane, pixels) for plane in outward], -1)
    axes = view.cameras.viewmats[0, :2, :3] @ quat_to_matrix(
        quat_multiply(placement.quats, cloud.quats)
    )
    focal = view.cameras.Ks[0, 0, 0] / depths
    across = torch.einsum("nij,ni->nj", axes, outward) * focal[:, None]
    extent = ((across * cloud.scales).square().sum(-1, keepdim=True) + PIXEL).sqrt()
    factor = (room / (REACH * extent)).clamp(LEAST_SHARE, 1)
    # Only the axes that point outwards become shorter; the rest comes in.
    outward_share = (across * cloud.scales / extent).square()
    scales = cloud.scales * (1 - outward_share * (1 - factor))
    extent = ((across * scales).square().sum(-1, keepdim=True) + PIXEL).sqrt()
    excess = (REACH * extent - room).clamp(0, MAX_STEP)
    return scales, -excess * outward


def fill_outline(
    cloud: SurfaceCloud,
    view: PortraitView,
    rig: HeadRig,
    face_kinds: FaceKinds,
    pixel_kinds: Tensor,
    density: float,
) -> SurfaceCloud:
    """Points on pixels of the subject next to the cloud that it leaves bare.

    A hand or a second person is in the matte too: what is far from the cloud stays bare.
    """
    placement = place_points(cloud.points, rig, view.rig_params)
    posed = placement.pose_gaussians(cloud.to_gaussians(torch.zeros_like(cloud.means)))
    _, alphas, meta = rasterize(posed, view.cameras, with_meta=True)
    covered = alphas[0, ..., 0] > BARE
    distances, nearest = _nearest_alike(covered, pixel_kinds)
    metres = metres_per_pixel(view)
    below = torch.arange(len(covered))[:, None] > float(view.landmarks[CHIN, 1])
    is_body = below & (pixel_kinds == PointKind.CLOTH)
    limit = torch.where(is_body, NEAR_BODY, NEAR_HEAD) / metres
    subject = shrink_mask((view.matte > 0.5) & view.inside)
    bare = subject & ~covered & (distances < limit) & (pixel_kinds != PointKind.HAIR)
    bare = keep_large_parts(bare, int(SMALLEST_PART * view.eye_distance**2))
    stride = STRIDE / math.sqrt(density) * len(covered) / 384
    pixels = lay_lattice(bare, stride)
    depth = meta.depths[0, ..., 0].flatten()[nearest] + RECEDING * metres * distances
    z = at_pixels(depth, pixels)
    places = unproject(pixels, z, view)
    forward = -view.cameras.viewmats[0, 2, :3]
    radius = 0.8 * stride * z / view.cameras.Ks[0, 0, 0]
    points = bring_to_rest(
        places,
        forward.expand(len(places), 3),
        radius[:, None].expand(-1, 2),
        view,
        rig,
        face_kinds,
    )
    return replace(points, kinds=at_pixels(pixel_kinds, pixels))


def _nearest_alike(covered: Tensor, pixel_kinds: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest covered pixel of the own kind, as of `nearest_pixels`; hair ends by itself."""
    distances, nearest = nearest_pixels(torch.zeros_like(covered))
    for kind in (PointKind.SKIN, PointKind.CLOTH):
        own = pixel_kinds == kind
        far, found = nearest_pixels(covered & own)
        distances, nearest = torch.where(own, far, distances), torch.where(own, found, nearest)
    return distances, nearest
