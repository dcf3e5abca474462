# SPDX-License-Identifier: Apache-2.0
"""From points to splats that look like the photograph, with a trained decoder or without one."""

from __future__ import annotations

import torch

from ..geometry.structures import CanonicalPoints, Gaussians
from ..models.modeling_gaussian_decoder import GaussianDecoder, PointSights
from ..rigs.head_rig import HeadRig
from .coloring import color_points, correct_colors
from .coverage import correct_coverage
from .face_kinds import find_face_kinds
from .point_sights import see_points
from .portrait_view import PortraitView
from .projection import ProjectedPoints, project_onto_portrait
from .rig_points import adopt_points
from .surface_cloud import SurfaceCloud


@torch.no_grad()
def dress_points(
    points: CanonicalPoints,
    view: PortraitView,
    rig: HeadRig,
    decoder: GaussianDecoder | None = None,
) -> Gaussians:
    """The splats of a cloud that a photograph shows.

    Args:
        points: N canonical points; a `SurfaceCloud` has been completed.
        view: The photograph and the fit of the rig.
        rig: Of the bindings.
        decoder: With `image_inputs="projected"`; None takes discs in the photograph's colours.
    """
    if isinstance(points, SurfaceCloud):
        cloud = points
    else:
        rest = rig.canonical_vertices(view.rig_params.betas)[0]
        cloud = adopt_points(points, rig, rest, find_face_kinds(rig), density=1.0)
    projected = project_cloud(cloud, view, rig)
    if decoder is None:
        return cloud.to_gaussians(color_points(cloud, projected, view, rig))
    gaussians = decode_points(decoder, cloud, see_points(cloud, projected, view, rig))
    gaussians = correct_coverage(gaussians, cloud.bindings, view, rig)
    return correct_colors(gaussians, cloud.bindings, projected, view, rig)


def project_cloud(cloud: SurfaceCloud, view: PortraitView, rig: HeadRig) -> ProjectedPoints:
    """The points of a completed cloud as the photograph shows them."""
    return project_onto_portrait(
        cloud.points,
        rig,
        view.rig_params,
        view.cameras,
        view.matte,
        normals=cloud.normals,
        kinds=cloud.kinds,
    )


def decode_points(decoder: GaussianDecoder, cloud: SurfaceCloud, sights: PointSights) -> Gaussians:
    """What a trained decoder makes of one cloud."""
    batched = PointSights(
        features=sights.features[None],
        samples=sights.samples[None],
        quats=sights.quats[None],
        scales=sights.scales[None],
    )
    return decoder(cloud.means[None], sights=batched).gaussians(0, len(cloud))
