# SPDX-License-Identifier: Apache-2.0
"""From points to splats that look like the photograph, with a trained decoder or without one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..geometry.structures import CanonicalPoints, Gaussians
from ..models.modeling_gaussian_decoder import GaussianDecoder, PointSights
from ..rigs.head_rig import HeadRig
from .coloring import bound_shades, color_points, correct_colors
from .coverage import correct_coverage
from .face_kinds import PointKind, find_face_kinds
from .gaps import close_back, close_gaps, fit_cloth, measure_spacings
from .mouth_lining import line_mouth
from .point_sights import see_points
from .portrait_view import PortraitView
from .projection import ProjectedPoints, project_onto_portrait
from .rig_points import adopt_points
from .surface_cloud import SurfaceCloud

EDGE = 10.0  # pixels of a frame of 384 from the outline
LEAST_SOLID = 0.85  # opacity of skin, eyes, teeth and cloth


@torch.no_grad()
def dress_points(
    points: CanonicalPoints,
    view: PortraitView,
    rig: HeadRig,
    decoder: GaussianDecoder | None = None,
) -> Gaussians:
    """The splats of a cloud that a photograph shows, on the device of the rig.

    The decoder computes where it is, all else on the CPU, as in `complete_points`.

    Args:
        points: N canonical points; a `SurfaceCloud` has been completed.
        view: The photograph and the fit of the rig.
        rig: Of the bindings.
        decoder: With `image_inputs="projected"`; None takes discs in the photograph's colours.
    """
    device, rig, view = rig.v_template.device, rig.on_cpu(), view.to("cpu")
    if isinstance(points, SurfaceCloud):
        cloud = points.to("cpu")
    else:
        rest = rig.canonical_vertices(view.rig_params.betas)[0]
        cloud = adopt_points(points.to("cpu"), rig, rest, find_face_kinds(rig), density=1.0)
    projected = project_cloud(cloud, view, rig)
    if decoder is None:
        return cloud.to_gaussians(color_points(cloud, projected, view, rig)).to(device)
    sights = see_points(cloud, projected, view, rig)
    gaussians = decode_points(decoder, cloud.to(decoder.device), sights.to(decoder.device))
    gaussians = gaussians.to("cpu")
    colors = bound_shades(gaussians.colors, sights.filled, cloud.kinds)
    gaussians = make_solid(replace(gaussians, colors=colors), cloud.kinds)
    spacings = measure_spacings(gaussians.means, cloud.kinds)
    gaussians = close_gaps(gaussians, cloud.kinds, spacings)
    gaussians = close_back(gaussians, cloud.kinds, spacings, projected.facing)
    gaussians = _fit_cloth(gaussians, cloud, spacings, projected, len(view.matte))
    gaussians = line_mouth(gaussians, cloud.points, cloud.kinds, find_face_kinds(rig))
    thinning = find_thinning(projected)
    gaussians = correct_coverage(gaussians, cloud.bindings, view, rig, thinning=thinning)
    return correct_colors(gaussians, cloud.bindings, projected, view, rig).to(device)


def _fit_cloth(
    gaussians: Gaussians,
    cloud: SurfaceCloud,
    spacings: Tensor,
    projected: ProjectedPoints,
    size: int,
) -> Gaussians:
    """`fit_cloth` to what a picture of so many pixels shows."""
    is_shown = projected.in_frame & (projected.matte_distances > 0)
    # At the outline the body has near neighbours on one side only, and must reach to the other.
    at_edge = projected.matte_distances < EDGE * size / 384
    laid = cloud.scales.amax(-1)
    return fit_cloth(gaussians, cloud.kinds, spacings, is_shown, laid * at_edge, laid)


def make_solid(gaussians: Gaussians, kinds: Tensor) -> Gaussians:
    """Splats of which only those of hair, and of the dark mouth, may be shone through.

    Where the head may lie elsewhere than was tracked, the decoder hedges; seen against another
    background that would be a ghost.

    Args:
        gaussians: N of them.
        kinds: `PointKind` of each. [N]
    """
    may_be_thin = (kinds == PointKind.HAIR) | (kinds == PointKind.MOUTH)
    solid = gaussians.opacities.clamp(min=LEAST_SOLID)
    opacities = torch.where(may_be_thin, gaussians.opacities, solid)
    return replace(gaussians, opacities=opacities)


def find_thinning(projected: ProjectedPoints) -> Tensor:
    """How far splats may become fainter for what the photograph shows, in [0, 1]. [N]

    Skin may not. Where a cheek turns away many splats lie on few pixels at the outline. All would
    become faint for what sticks out there, and from the side the cheek would have a hole.
    """
    return (projected.kinds != PointKind.SKIN).float()


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
        picture=view.foreground,
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
