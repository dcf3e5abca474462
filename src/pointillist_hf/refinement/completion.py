# SPDX-License-Identifier: Apache-2.0
"""A generated cloud completed by the photograph: every face has a point, every hair pixel too.

Except for what lies below the photograph, see `end_with_photograph`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.structures import CanonicalPoints
from ..rigs.head_rig import HeadRig
from ..rigs.landmark_places import LandmarkPlaces
from .cloth_points import lay_cloth
from .face_kinds import FaceKinds, PointKind, find_face_kinds
from .hair_points import grow_hair
from .hair_surface import build_hair_surface
from .kind_votes import recognise_points
from .landmark_warp import warp_to_landmarks
from .limb_hair import find_hair_behind, tuck_cheeks
from .outline import end_with_photograph, fill_outline, keep_in_matte
from .pixel_kinds import classify_pixels
from .placement import place_points
from .portrait_view import PortraitView
from .rig_points import (
    adopt_points,
    choose_spacings,
    complete_faces,
    cover_faces,
    find_seen_faces,
)
from .surface_cloud import SurfaceCloud, join_clouds
from .teeth import fit_teeth

# Metres from its face. A small generator misses by 6 mm; what lies farther off would be a speck.
ADOPTED_HEIGHT = 1.5e-3


@torch.no_grad()
def complete_points(
    points: CanonicalPoints | None,
    view: PortraitView,
    rig: HeadRig,
    *,
    places: LandmarkPlaces | None = None,
    density: float = 1.0,
    tolerance: float | None = ADOPTED_HEIGHT,
) -> SurfaceCloud:
    """Discs for all that the photograph shows, and for what it hides; on the device of the rig.

    Computed on the CPU, wherever the arguments lie: many small steps whose sizes depend on values.

    Args:
        points: As generated, in the canonical space of the view's identity; None or empty: the
            rig and the photograph make them all.
        view: The photograph and the fit of the rig.
        rig: Of the bindings.
        places: Of the landmarks on the rig; None: points stay where the fit of the rig has them.
        density: Over the usual number of points, which is about 22,500.
        tolerance: See `adopt_points`; None takes all points as they are.
    """
    device, rig, view = rig.v_template.device, rig.on_cpu(), view.to("cpu")
    points = None if points is None else points.to("cpu")
    places = None if places is None else places.to("cpu")
    face_kinds = find_face_kinds(rig)
    pixel_kinds = classify_pixels(view, rig, face_kinds)
    spacings = choose_spacings(rig, view, face_kinds, pixel_kinds, density)
    cover = cover_faces(rig, view.rig_params.betas, face_kinds, spacings)
    if points is not None and len(points):
        rest = rig.canonical_vertices(view.rig_params.betas)[0]
        seen = find_seen_faces(rig, view, face_kinds, pixel_kinds)
        own = adopt_points(points, rig, rest, face_kinds, density, tolerance, seen)
        cover = join_clouds([own, complete_faces(own, cover, rig.num_faces)])
    placement = place_points(cover.points, rig, view.rig_params)
    if places is not None:
        means = warp_to_landmarks(cover, placement, view, rig, places)
        cover = fit_teeth(replace(cover, means=means), placement, view, face_kinds)
    behind = find_hair_behind(view, rig, face_kinds, pixel_kinds)
    means = tuck_cheeks(cover, placement, view, face_kinds, behind)
    cover = replace(cover, means=means)
    kinds = recognise_points(cover, placement, view, rig, pixel_kinds)
    cover = replace(cover, kinds=kinds)
    skin = placement.pose_means(cover.means)[_is_outer(cover, face_kinds)]
    surface = build_hair_surface(view, rig, face_kinds, pixel_kinds, skin)
    hair = grow_hair(view, rig, face_kinds, pixel_kinds, surface, density, behind)
    cloth = lay_cloth(view, rig, face_kinds, pixel_kinds, density)
    cloud = keep_in_matte(join_clouds([cover, hair, cloth]), view, rig)
    cloud = end_with_photograph(cloud, view, rig, pixel_kinds)
    rim = fill_outline(cloud, view, rig, face_kinds, pixel_kinds, density)
    return join_clouds([cloud, rim]).to(device)


def _is_outer(cloud: SurfaceCloud, face_kinds: FaceKinds) -> Tensor:
    """Points of the skin that hair may lie on. [N]"""
    skin = (cloud.kinds == PointKind.SKIN) | (cloud.kinds == PointKind.HAIR)
    return skin & ~face_kinds.is_ear[cloud.bindings] & ~face_kinds.is_lid[cloud.bindings]
