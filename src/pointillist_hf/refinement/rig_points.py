# SPDX-License-Identifier: Apache-2.0
"""Points that the rig itself asks for: enough on every face for a photograph to be seen on it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.cameras import project_points
from ..geometry.structures import CanonicalPoints, RigParams
from ..geometry.triangles import barycentric_coordinates, triangle_frames
from ..rigs.head_rig import HeadRig
from .face_kinds import FaceKinds, PointKind
from .lids import BLINK
from .mesh_pictures import at_pixels
from .neighbors import nearest_points
from .portrait_view import PortraitView
from .projection import guess_kinds
from .surface_cloud import (
    SurfaceCloud,
    disc_shapes,
    frames_along,
    smooth_normals,
    split_faces,
)

OPEN_JAW, MOST_STRETCH = (0.3, 0.0, 0.0), 3.0  # radians; denser than that is a waste
STRETCHED = 1.3  # from which discs are kept from becoming smaller: they would tear apart
STRETCH_GROWTH = 0.35  # power of the stretch by which discs are larger than their pieces
STRETCH_DENSITY = 0.5  # power of the stretch by which points are nearer to each other
BEHIND_LIPS = 6.5e-3  # metres by which the mouth gives way, else it shows through thin lips
BESIDE = 4e-3  # metres that a generated point may lie beside its face: beyond an edge it would hang
UNSEEN = 2.0  # how much farther apart points are where the photograph does not show them


def cover_faces(
    rig: HeadRig, betas: Tensor, face_kinds: FaceKinds, spacings: Tensor
) -> SurfaceCloud:
    """At least one point on every face, more on large ones.

    Args:
        rig: Its faces.
        betas: Of the identity. [1, S]
        face_kinds: Of the rig.
        spacings: Between the points of each face, metres. [F]
    """
    rest = rig.canonical_vertices(betas)[0]
    face_ids, pieces = split_faces(rest, rig.faces, spacings)
    corners = pieces @ rest[rig.faces[face_ids]]
    quats, scales = disc_shapes(corners)
    scales = scales * find_stretch(rig, betas)[face_ids, None] ** STRETCH_GROWTH
    normals = smooth_normals(rest, rig.faces)[rig.faces[face_ids]]
    normals = normalize((pieces @ normals).sum(1), dim=-1)
    kinds = face_kinds.kinds[face_ids]
    means = corners.mean(1)
    back = (kinds == PointKind.MOUTH)[:, None] * means.new_tensor([0.0, 0.0, -BEHIND_LIPS])
    return SurfaceCloud(means + back, face_ids, quats, scales, normals, kinds)


def choose_spacings(
    rig: HeadRig, view: PortraitView, face_kinds: FaceKinds, pixel_kinds: Tensor, density: float
) -> Tensor:
    """Distances between points that the photograph can fill, metres. [F]"""
    seen = find_seen_faces(rig, view, face_kinds, pixel_kinds)
    factors = torch.where(seen | face_kinds.is_hem, 1.0, UNSEEN)
    spacings = face_kinds.spacings * factors / density**0.5
    spacings = spacings / find_stretch(rig, view.rig_params.betas) ** STRETCH_DENSITY
    # One point on each face of what no view shows.
    return torch.where(face_kinds.is_hidden, 1.0, spacings)


def find_seen_faces(
    rig: HeadRig, view: PortraitView, face_kinds: FaceKinds, pixel_kinds: Tensor
) -> Tensor:
    """Faces that are turned to the camera and bare; lids, which open and close, too. [F]

    Hair and clothes in front of others have points of their own.
    """
    vertices = rig(view.rig_params)[0]
    rotation, shift = view.cameras.viewmats[0, :3, :3], view.cameras.viewmats[0, :3, 3]
    to_eye = normalize(-(shift @ rotation) - vertices, dim=-1)
    facing = (smooth_normals(vertices, rig.faces) * to_eye).sum(-1)[rig.faces].amax(1)
    centres, _ = project_points(vertices[rig.faces].mean(1), view.cameras)
    shown = at_pixels(pixel_kinds, centres[0])
    covered = (shown == PointKind.HAIR) | (shown == PointKind.CLOTH)
    return ((facing > 0.15) & ~covered) | face_kinds.is_lid


def find_stretch(rig: HeadRig, betas: Tensor) -> Tensor:
    """How much longer each face becomes in an open mouth or a blink; 1 for most. [F]

    Discs grow with their faces, but then a face shows less: it needs more of them.
    """
    rest = rig.neutral(betas=betas)
    opened = replace(rest, jaw_pose=rest.jaw_pose + rest.jaw_pose.new_tensor(OPEN_JAW))
    blink = [float(name.startswith(BLINK)) for name in rig.expression_names]
    closed = replace(rest, expression=rest.expression + rest.expression.new_tensor(blink))
    before = _side_lengths(rig, rest).clamp_min(1e-5)
    ratios = [_side_lengths(rig, params) / before for params in (opened, closed)]
    return torch.stack(ratios).amax((0, 2)).clamp(1.0, MOST_STRETCH)


def _side_lengths(rig: HeadRig, rig_params: RigParams) -> Tensor:
    """[F, 3] metres"""
    corners = rig(rig_params)[0][rig.faces]
    return (corners.roll(-1, 1) - corners).norm(dim=-1)


def adopt_points(
    points: CanonicalPoints,
    rig: HeadRig,
    rest: Tensor,
    face_kinds: FaceKinds,
    density: float,
    tolerance: float | None = None,
    seen: Tensor | None = None,
) -> SurfaceCloud:
    """A generated cloud as discs that lie like their faces.

    Args:
        points: As generated.
        rig: Of the bindings.
        rest: Vertices of the identity at rest, metres. [V, 3]
        face_kinds: Of the rig.
        density: As in `cover_faces`.
        tolerance: Of the distance between a point and its face, metres. With one, only skin and
            cloth that lie so near are adopted, and no feature of the face; None adopts all.
        seen: Faces whose skin a photograph shows, where points in even rows show more of it than
            generated ones. [F]
    """
    frames, centres, _ = triangle_frames(rest[rig.faces[points.bindings]])
    heights = ((points.means - centres) * frames[..., 1]).sum(-1)
    kinds = guess_kinds(points.bindings, heights, face_kinds)
    kept = torch.ones_like(heights, dtype=torch.bool)
    if tolerance is not None:
        plain = (kinds == PointKind.SKIN) & ~face_kinds.is_feature[points.bindings]
        plain = plain if seen is None else plain & ~seen[points.bindings]
        kept = (plain | (kinds == PointKind.CLOTH)) & (heights.abs() < tolerance)
        corners = rest[rig.faces[points.bindings]]
        weights = barycentric_coordinates(points.means, corners)
        kept &= (torch.einsum("nk,nkc->nc", weights, corners) - points.means).norm(dim=-1) < BESIDE
    bindings, normals, edges = points.bindings[kept], frames[kept, :, 1], frames[kept, :, 0]
    radius = 0.62 * face_kinds.spacings[bindings] / density**0.5
    return SurfaceCloud(
        means=points.means[kept],
        bindings=bindings,
        quats=frames_along(normals, edges),
        scales=torch.stack([radius, radius, 0.2 * radius], dim=-1),
        normals=normals,
        kinds=kinds[kept],
    )


def complete_faces(own: SurfaceCloud, cover: SurfaceCloud, num_faces: int) -> SurfaceCloud:
    """Those points of the cover that the cloud lacks: each of its points replaces the nearest."""
    if not len(own):
        return cover
    _, nearest = nearest_points(own.means, cover.means, 1)
    replaced = torch.zeros(len(cover), dtype=torch.bool)
    replaced[nearest[:, 0]] = True
    has_own = torch.bincount(own.bindings, minlength=num_faces) > 0
    return cover[~(replaced & has_own[cover.bindings])]
