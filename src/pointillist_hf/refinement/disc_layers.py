# SPDX-License-Identifier: Apache-2.0
"""Layers of discs over the pixels of a photograph, in the pose, and how they come to rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..rigs.head_rig import HeadRig
from .distance_maps import blur_picture, nearest_pixels
from .face_kinds import FaceKinds, PointKind
from .mesh_pictures import at_pixels
from .neighbors import nearest_points
from .placement import rest_points
from .portrait_view import PortraitView, metres_per_pixel
from .surface_cloud import SurfaceCloud, frames_along

STEEPEST = 2.5  # slope of the depth that discs follow
MOST_JAW = 0.002  # weight of the jaw on faces that hair and collars hang on
Discs = tuple[Tensor, Tensor, Tensor]  # places [K, 3], normals [K, 3], radii [K, 2], in the pose


def lay_discs(depth: Tensor, mask: Tensor, view: PortraitView, stride: float) -> Discs:
    """Discs on a surface that is known by its depth, over the pixels of a mask.

    Args:
        depth: Metres. [H, W]
        mask: [H, W]
        view: The photograph.
        stride: Pixels between them.
    """
    pixels = lay_lattice(mask, stride)
    slope = _slopes(depth, mask, view)[:, pixels[:, 1].long(), pixels[:, 0].long()]
    z = at_pixels(depth, pixels)
    rotation = view.cameras.viewmats[0, :3, :3]
    normals = normalize(torch.cat([slope.T, -torch.ones(len(pixels), 1)], 1), dim=-1) @ rotation
    radius = 0.64 * stride * z / view.cameras.Ks[0, 0, 0]
    radius = radius * (1 + slope.square().sum(0)) ** 0.25
    return unproject(pixels, z, view), normals, radius[:, None].expand(-1, 2)


def lay_lattice(mask: Tensor, stride: float) -> Tensor:
    """Places on the mask, in rows that are shifted against each other. [K, 2] pixels"""
    height, width = mask.shape
    rows = torch.arange(0.5, height, stride * math.sqrt(3) / 2)
    columns = torch.arange(0.5, width, stride * 2 / math.sqrt(3))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    x = x + (torch.arange(len(rows)) % 2)[:, None] * stride / math.sqrt(3)
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
    pixels = pixels[pixels[:, 0] < width]
    return pixels[mask[pixels[:, 1].long(), pixels[:, 0].long()]]


def unproject(pixels: Tensor, depths: Tensor, view: PortraitView) -> Tensor:
    """Places in the world of pixels [K, 2] at depths [K]. [K, 3] metres"""
    K, viewmat = view.cameras.Ks[0], view.cameras.viewmats[0]
    rays = torch.nn.functional.pad(pixels, (0, 1), value=1.0) @ torch.linalg.inv(K).T
    return (rays * depths[:, None] - viewmat[:3, 3]) @ viewmat[:3, :3]


def _slopes(depth: Tensor, mask: Tensor, view: PortraitView) -> Tensor:
    """Slope of the depth to the right and down, metres per metre. [2, H, W]"""
    metres = metres_per_pixel(view)
    _, own = nearest_pixels(mask) if mask.any() else (None, torch.arange(mask.numel()))
    filled = depth.flatten()[own].reshape(depth.shape)
    filled = blur_picture(filled[..., None], 1.0)[..., 0]
    down, right = torch.gradient(filled)
    return (torch.stack([right, down]) / metres).clamp(-STEEPEST, STEEPEST)


def bring_to_rest(
    places: Tensor,
    normals: Tensor,
    radii: Tensor,
    view: PortraitView,
    rig: HeadRig,
    face_kinds: FaceKinds,
    kind: PointKind = PointKind.HAIR,
) -> SurfaceCloud:
    """Discs bound to the nearest skin that neither opens with the jaw nor blinks, at rest."""
    if not len(places):
        return empty_cloud()
    jaw = rig.lbs_weights[rig.faces][..., 2].amax(1)
    still = face_kinds.is_anchor & (jaw < MOST_JAW)
    anchors = (still if still.any() else face_kinds.is_anchor).nonzero()[:, 0]
    centres = rig(view.rig_params)[0][rig.faces[anchors]].mean(1)
    _, found = nearest_points(places, centres, 1)
    bindings = anchors[found[:, 0]]
    means, placement = rest_points(places, bindings, rig, view.rig_params)
    normals = normalize(placement.rest_vectors(normals), dim=-1)
    scales = torch.cat([radii, 0.3 * radii.amin(1, keepdim=True)], dim=-1)
    hanging = normals.new_tensor([0.02, -1.0, 0.03]).expand_as(normals)
    return SurfaceCloud(
        means=means,
        bindings=bindings,
        quats=frames_along(normals, hanging),
        scales=scales,
        normals=normals,
        kinds=torch.full((len(means),), int(kind)),
    )


def empty_cloud() -> SurfaceCloud:
    """No points."""
    none, ids = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    return SurfaceCloud(none, ids, torch.zeros(0, 4), none, none, ids)
