# SPDX-License-Identifier: Apache-2.0
"""A generated cloud completed by the photograph: every face has a point, every hair pixel too."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.cameras import project_points
from ..geometry.structures import CanonicalPoints
from ..rigs.head_rig import HeadRig
from .distance_maps import nearest_pixels
from .face_kinds import FaceKinds, PointKind, find_face_kinds
from .hair_points import grow_hair
from .hair_surface import build_hair_surface
from .kind_votes import recognise_points
from .landmark_warp import LandmarkPlaces, unproject_shifts, warp_to_landmarks
from .pixel_kinds import classify_pixels
from .placement import place_points
from .portrait_view import PortraitView
from .rig_points import adopt_points, choose_spacings, complete_faces, cover_faces
from .surface_cloud import SurfaceCloud, join_clouds

MARGIN = 1.0  # pixels inside the border of the matte, where points beyond it are brought


@torch.no_grad()
def complete_points(
    points: CanonicalPoints | None,
    view: PortraitView,
    rig: HeadRig,
    *,
    landmark_places: LandmarkPlaces | None = None,
    density: float = 1.0,
) -> SurfaceCloud:
    """Discs for all that the photograph shows, and for what it hides.

    Args:
        points: As generated, in the canonical space of the view's identity; None or empty: the
            rig and the photograph make them all.
        view: The photograph and the fit of the rig.
        rig: Of the bindings.
        landmark_places: Where the 468 landmarks lie on the rig; None: points stay on the fit.
        density: Over the usual number of points, which is about 15,000.
    """
    face_kinds = find_face_kinds(rig)
    pixel_kinds = classify_pixels(view, rig, face_kinds)
    rest = rig.canonical_vertices(view.rig_params.betas)[0]
    cover = cover_faces(rig, rest, face_kinds, choose_spacings(rig, view, face_kinds, density))
    if points is not None and len(points):
        own = adopt_points(points, rig, rest, face_kinds, density)
        lacking = complete_faces(own, cover, rig.num_faces)
        # The photograph knows better where hair is.
        cover = join_clouds([own[own.kinds != PointKind.HAIR], lacking])
    placement = place_points(cover.points, rig, view.rig_params)
    if landmark_places is not None:
        means = warp_to_landmarks(cover, placement, view, rig, landmark_places)
        cover = replace(cover, means=means)
    kinds = recognise_points(cover, placement, view, rig, pixel_kinds)
    cover = replace(cover, kinds=kinds)
    skin = placement.pose_means(cover.means)[_is_outer(cover, face_kinds)]
    surface = build_hair_surface(view, rig, face_kinds, pixel_kinds, skin)
    hair = grow_hair(view, rig, face_kinds, pixel_kinds, surface, density)
    return _keep_in_matte(join_clouds([cover, hair]), view, rig)


def _is_outer(cloud: SurfaceCloud, face_kinds: FaceKinds) -> Tensor:
    """Points of the skin that hair may lie on. [N]"""
    skin = (cloud.kinds == PointKind.SKIN) | (cloud.kinds == PointKind.HAIR)
    return skin & ~face_kinds.is_ear[cloud.bindings] & ~face_kinds.is_lid[cloud.bindings]


def _keep_in_matte(cloud: SurfaceCloud, view: PortraitView, rig: HeadRig) -> SurfaceCloud:
    """The cloud within the subject's outline: what sticks out is brought to the border."""
    placement = place_points(cloud.points, rig, view.rig_params)
    pixels, depths = project_points(placement.pose_means(cloud.means), view.cameras)
    pixels, depths = pixels[0], depths[0]
    height, width = view.matte.shape
    subject = (view.matte > 0.5) | ~view.inside
    distances, nearest = nearest_pixels(subject)
    places = pixels.floor().long()
    in_frame = ((places >= 0) & (places < places.new_tensor([width, height]))).all(-1)
    row, column = places[:, 1].clamp(0, height - 1), places[:, 0].clamp(0, width - 1)
    out = in_frame & (distances[row, column] > 0)
    target = nearest[row, column]
    target = torch.stack([target % width, target // width], -1) + 0.5
    step = target - pixels
    step = step + MARGIN * torch.nn.functional.normalize(step, dim=-1)
    shift = unproject_shifts(step, depths, view)
    means = torch.where(out[:, None], cloud.means + placement.rest_vectors(shift), cloud.means)
    return replace(cloud, means=means)
