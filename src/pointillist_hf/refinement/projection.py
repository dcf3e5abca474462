# SPDX-License-Identifier: Apache-2.0
"""What each point of a cloud has to do with one photograph.

Points are posed by Eq. 5 of the paper and projected; all else follows from where they land.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.cameras import project_points
from ..geometry.structures import Cameras, CanonicalPoints, RigParams, TensorRecord
from ..geometry.triangles import triangle_frames
from ..rigs.head_rig import HeadRig
from .distance_maps import signed_distances
from .face_kinds import FaceKinds, PointKind, find_face_kinds
from .fill_table import FillTable, build_fill_table
from .lids import LID, NEAR, is_folded, measure_blink
from .mesh_pictures import at_pixels, draw_rig, is_in_frame
from .neighbors import nearest_points
from .placement import Placement, place_points
from .portrait_view import sample_picture

HAIR_HEIGHT = 5e-3  # above its face, metres: farther out, a point on skin is hair
DISC = 0.75  # radius of the disc that stands for a point, over its spacing
MAX_SLACK = 7e-3  # metres
MAX_DISC = 5.0  # pixels; larger discs would hide what lies beside them
TOLERANCES = {"surface": 6e-3, "hair": 12e-3}  # behind what is nearest, metres
MIN_FACING = {"surface": 0.25, "small": 0.05}  # lids and teeth are small and curved
GRAZING = 0.25  # of facing, over which a sample comes to count in full
LASHES = 1.0e-3  # metres from the lids: closer, an eye is covered
LIMB_FACING, MIXED = 0.6, 4.0  # facing; pixels of a frame of 384 from hair, over which colours mix
# Brightness over that of the skin around the limb, below which it is something else.
FOREIGN = 0.5
RIM = 1.5  # pixels from the border of the matte: closer, colours are mixed with the background


@dataclass(frozen=True)
class ProjectedPoints(TensorRecord):
    """N points in one photograph."""

    pixels: Tensor  # [N, 2] the centre of the first pixel at 0.5
    depths: Tensor  # [N] along the optical axis, metres
    normals: Tensor  # [N, 3] in the axes of the camera
    facing: Tensor  # [N] cosine between the normal and the way to the camera
    depth_gaps: Tensor  # [N] behind the nearest thing at the same pixel, metres
    matte_distances: Tensor  # [N] to the border of the matte, pixels; positive inside
    in_frame: Tensor  # [N] whether the photograph reaches that far
    is_visible: Tensor  # [N]
    is_folded: Tensor  # [N] lids that an open eye folds away, and what their lashes darken
    kinds: Tensor  # [N] `PointKind`
    spacings: Tensor  # [N] to the neighbours at rest, metres
    mirror_ids: Tensor  # [N] the point nearest to the mirror image at rest
    fill_table: FillTable  # visible points whose samples a point shows: itself if it is visible

    def __len__(self) -> int:
        return len(self.pixels)

    def fill(self, samples: Tensor) -> Tensor:
        """What each point shows, from samples of a picture at `pixels`: linear in the picture.

        Args:
            samples: [N, K]

        Returns:
            [N, K]
        """
        return self.fill_table.fill(samples)


@torch.no_grad()
def project_onto_portrait(
    points: CanonicalPoints,
    rig: HeadRig,
    rig_params: RigParams,
    cameras: Cameras,
    matte: Tensor,
    *,
    normals: Tensor | None = None,
    kinds: Tensor | None = None,
    picture: Tensor | None = None,
) -> ProjectedPoints:
    """The points as the photograph shows them.

    Args:
        points: N canonical points.
        rig: Of their bindings.
        rig_params: One frame: the photograph's.
        cameras: One: the photograph's.
        matte: 1 on the subject. [H, W]
        normals: At rest; by default those of the faces. [N, 3]
        kinds: `PointKind` of each; by default from its face and its height above it. [N]
        picture: Whose colours tell what lies on the limb of the face and is not of it, a strand or
            a shadow; None takes all for skin. [H, W, 3]
    """
    face_kinds = find_face_kinds(rig)
    rest = rig.canonical_vertices(rig_params.betas)[0]
    frames, centres, _ = triangle_frames(rest[rig.faces[points.bindings]])
    heights = ((points.means - centres) * frames[..., 1]).sum(-1)
    normals = frames[..., 1] if normals is None else normals
    kinds = guess_kinds(points.bindings, heights, face_kinds) if kinds is None else kinds
    small = face_kinds.is_lid[points.bindings] | (kinds == PointKind.TEETH)
    spacings, mirror_ids = _measure_cloud(points.means)
    placement = place_points(points, rig, rig_params)
    seen = look_at_points(points.means, placement, normals, cameras)
    depth, _ = draw_rig(rig, rig_params, cameras)
    depth = _draw_discs(depth, seen, spacings, kinds)
    gaps = seen.depths - at_pixels(depth, seen.pixels)
    distances = at_pixels(signed_distances(matte > 0.5), seen.pixels)
    in_frame = is_in_frame(seen.pixels, cameras, margin=1)
    # A disc that faces the camera hides neighbours that lie farther back only for their slant.
    slant = (1 - seen.facing.square()).clamp_min(0).sqrt() / seen.facing.clamp_min(0.3)
    slack = (DISC * spacings * slant).clamp(max=MAX_SLACK)
    clear = is_in_front(gaps - slack, seen.facing, kinds, small)
    is_visible = in_frame & (distances > RIM) & clear
    own_shares, is_source = _weigh_samples(is_visible, seen.facing, distances, kinds, small)
    blink = torch.where(kinds == PointKind.SKIN, measure_blink(points, rig, rig_params.betas), 0)
    lashes = _find_lashes(seen, kinds, blink)
    folded = is_folded(blink, face_kinds.is_lid[points.bindings]) | lashes
    beside = _find_beside_hair(seen, kinds, is_visible, len(matte))
    own_shares = own_shares * ~(folded | beside)
    is_source = is_source & (blink < NEAR) & ~(lashes | beside)
    if picture is not None:
        at_limb = (kinds == PointKind.SKIN) & is_visible & (seen.facing < LIMB_FACING)
        at_limb &= points.means[:, 1] > _lowest_of_mouth(rest[rig.faces], face_kinds)
        samples = sample_picture(picture, seen.pixels)
        upright = build_fill_table(points.means, kinds, own_shares * ~at_limb, is_source & ~at_limb)
        is_own = ~(at_limb & _is_foreign(samples, upright.fill(samples)))
        own_shares, is_source = own_shares * is_own, is_source & is_own
    return ProjectedPoints(
        pixels=seen.pixels,
        depths=seen.depths,
        normals=seen.normals,
        facing=seen.facing,
        depth_gaps=torch.where(gaps.isfinite(), gaps, 0),
        matte_distances=distances,
        in_frame=in_frame,
        is_visible=is_visible,
        is_folded=folded,
        kinds=kinds,
        spacings=spacings,
        mirror_ids=mirror_ids,
        fill_table=build_fill_table(points.means, kinds, own_shares, is_source),
    )


@dataclass(frozen=True)
class Sight:
    """Points in a camera, whatever lies before them."""

    pixels: Tensor  # [N, 2]
    depths: Tensor  # [N]
    normals: Tensor  # [N, 3] in the camera
    facing: Tensor  # [N]
    focal: float


def look_at_points(means: Tensor, placement: Placement, normals: Tensor, cameras: Cameras) -> Sight:
    """Points at rest as one camera has them."""
    posed = placement.pose_means(means)
    pixels, depths = project_points(posed, cameras)
    rotation, shift = cameras.viewmats[0, :3, :3], cameras.viewmats[0, :3, 3]
    turned = placement.pose_normals(normals)
    to_eye = normalize(-(shift @ rotation) - posed, dim=-1)
    facing = (turned * to_eye).sum(-1)
    return Sight(pixels[0], depths[0], turned @ rotation.T, facing, float(cameras.Ks[0, 0, 0]))


def guess_kinds(bindings: Tensor, heights: Tensor, face_kinds: FaceKinds) -> Tensor:
    """`PointKind` of points, from their faces and their heights above them, metres. [N]"""
    kinds = face_kinds.kinds[bindings]
    covered = (kinds == PointKind.SKIN) | (kinds == PointKind.CLOTH)
    return torch.where(covered & (heights > HAIR_HEIGHT), int(PointKind.HAIR), kinds)


def _measure_cloud(means: Tensor) -> tuple[Tensor, Tensor]:
    """Mean distance to the four nearest neighbours, metres [N]; nearest mirror images [N]."""
    if len(means) < 2:
        return means.new_full((len(means),), 0.012), torch.arange(len(means))
    around, _ = nearest_points(means, means, 5)
    mirrored = means * means.new_tensor([-1.0, 1.0, 1.0])
    _, mirror_ids = nearest_points(mirrored, means, 1)
    return around[:, 1:].mean(1).clamp(8e-4, 12e-3), mirror_ids[:, 0]


def is_in_front(gaps: Tensor, facing: Tensor, kinds: Tensor, small: Tensor) -> Tensor:
    """Points that nothing hides and that are turned to the camera. [N]"""
    hair = kinds == PointKind.HAIR
    near = gaps < torch.where(hair, TOLERANCES["hair"], TOLERANCES["surface"])
    least = torch.where(small, MIN_FACING["small"], MIN_FACING["surface"])
    # Hair has no surface: its points show from all sides.
    return near & (hair | (facing > least))


def _weigh_samples(
    is_visible: Tensor, facing: Tensor, distances: Tensor, kinds: Tensor, small: Tensor
) -> tuple[Tensor, Tensor]:
    """How much the own sample of each point is worth [N]; which points lend theirs [N]."""
    flat = (kinds != PointKind.HAIR) & ~small
    slant = ((facing - MIN_FACING["surface"]) / GRAZING).clamp(0, 1)
    slant = torch.where(flat, slant * slant * (3 - 2 * slant), 1.0)
    clear = ~flat | (facing > MIN_FACING["surface"] + GRAZING)
    lends = is_visible & clear & (distances > 2 * RIM)
    return is_visible * slant, lends


def _is_foreign(samples: Tensor, lent: Tensor) -> Tensor:
    """Samples much darker than the skin around them, which are of something else. [N, 3] -> [N]"""
    return samples.mean(1) < FOREIGN * lent.mean(1)


def _lowest_of_mouth(triangles: Tensor, face_kinds: FaceKinds) -> float:
    """Height of the lowest face in the mouth at rest, metres: what lies lower may be in shadow."""
    mouth = (face_kinds.kinds == PointKind.TEETH) | (face_kinds.kinds == PointKind.MOUTH)
    return float(triangles[mouth][..., 1].amin()) if mouth.any() else -torch.inf


def _find_beside_hair(seen: Sight, kinds: Tensor, is_visible: Tensor, size: int) -> Tensor:
    """Skin at the limb whose pixels are mixed with the hair behind or beside it. [N]"""
    asking = ((kinds == PointKind.SKIN) & is_visible & (seen.facing < LIMB_FACING)).nonzero()[:, 0]
    hair = seen.pixels[(kinds == PointKind.HAIR) & is_visible]
    beside = torch.zeros_like(is_visible)
    if len(asking) and len(hair):
        flat = torch.nn.functional.pad(torch.cat([seen.pixels[asking], hair]), (0, 1))
        distances, _ = nearest_points(flat[: len(asking)], flat[len(asking) :], 1)
        beside[asking] = distances[:, 0] < MIXED * size / 384
    return beside


def _find_lashes(seen: Sight, kinds: Tensor, blink: Tensor) -> Tensor:
    """Points of the eyes so near to a lid that its lashes and its shadow lie on them. [N]"""
    eyes = (kinds == PointKind.EYE).nonzero()[:, 0]
    lids = blink > LID
    near = torch.zeros_like(lids)
    if len(eyes) and lids.any():
        gaps, _ = nearest_points(seen.pixels[eyes], seen.pixels[lids], 1)
        near[eyes] = gaps[:, 0] < LASHES * seen.focal / seen.depths[eyes]
    return near


def _draw_discs(depth: Tensor, seen: Sight, spacings: Tensor, kinds: Tensor) -> Tensor:
    """The depth with every point as a disc that reaches its neighbours. [H, W]"""
    height, width = depth.shape
    radii = (DISC * spacings * seen.focal / seen.depths).clamp(1, MAX_DISC)
    faces_us = (kinds == PointKind.HAIR) | (seen.facing > 0)
    places = seen.pixels.floor().long()
    flat = depth.flatten().clone()
    reach = int(MAX_DISC)
    for across in range(-reach, reach + 1):
        for down in range(-reach, reach + 1):
            squared = across * across + down * down
            if squared > MAX_DISC**2:
                continue
            column, row = places[:, 0] + across, places[:, 1] + down
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            drawn = inside & faces_us & (radii.square() >= squared)
            place = (row * width + column)[drawn]
            flat.scatter_reduce_(0, place, seen.depths[drawn], "amin")
    return flat.reshape(height, width)
