# SPDX-License-Identifier: Apache-2.0
"""Avatars of one portrait with and without each part of the way there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pointillist_hf import Avatar, AvatarPipeline
from pointillist_hf.data.population.cloud import sample_cloud
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.geometry.structures import CanonicalPoints, Gaussians
from pointillist_hf.refinement.coloring import color_points
from pointillist_hf.refinement.completion import complete_points
from pointillist_hf.refinement.dressing import decode_points, dress_points
from pointillist_hf.refinement.point_sights import see_points
from pointillist_hf.refinement.portrait_view import PortraitView
from pointillist_hf.refinement.projection import project_onto_portrait
from pointillist_hf.refinement.surface_cloud import SurfaceCloud
from pointillist_hf.refinement.tracked_portrait import TrackedPortrait
from pointillist_hf.rigs.alignment import align_to_shape, move_to_shape
from pointillist_hf.rigs.head_rig import HeadRig
from pointillist_hf.rigs.landmark_sources import find_landmark_places

if TYPE_CHECKING:
    from .population import Person

MAIN, REFINED = "feed-forward", "refined"
TRUE_POINTS = 9000  # of the skin, and as many of long hair


@torch.no_grad()
def make_variants(
    pipe: AvatarPipeline, person: Person, tracked: list[TrackedPortrait], *, refine_steps: int
) -> Iterator[tuple[str, Avatar]]:
    """Name and avatar; "feed-forward" is what the pipeline makes."""
    rig, decoder = pipe.rig, pipe.gaussian_decoder
    looks = decoder.config.image_inputs == "projected"
    rig_params, context, layouts = pipe.encode_image([person.image], None, tracked)
    view, betas = tracked[0].view(pipe.config.view_size), rig_params.betas[0]
    generated = pipe.generate_tokens(context, rig_params, layouts, seeds=[0])
    cloud = pipe.tokenizer.decode_points(generated.input_ids[0])
    if pipe.config.align_points:
        cloud = align_to_shape(cloud, rig, betas)

    def avatar(gaussians: Gaussians, points: CanonicalPoints) -> Avatar:
        return Avatar(gaussians, points.bindings, rig, betas)

    if looks:
        yield "generated, decoder", avatar(dress_points(cloud, view, rig, decoder), cloud)
    else:
        hidden = generated.token_hidden_states
        yield "generated, decoder", avatar(_decode_alone(pipe, cloud, hidden, context), cloud)
    yield "generated, colours", avatar(dress_points(cloud, view, rig), cloud)

    places = find_landmark_places(rig)
    plain = complete_points(cloud, view, rig)
    yield "completed without warp, colours", avatar(dress_points(plain, view, rig), plain)
    alone = complete_points(None, view, rig, places=places)
    yield "rig completed, colours", avatar(dress_points(alone, view, rig), alone)
    full = complete_points(cloud, view, rig, places=places)
    yield "completed, colours, no residuals", avatar(_color_once(full, view, pipe), full)
    colored = avatar(dress_points(full, view, rig), full)
    main = colored
    if looks:
        yield "completed, colours", colored
        yield "completed, decoder, no residuals", avatar(_decode_once(full, view, pipe), full)
        main = avatar(dress_points(full, view, rig, decoder), full)
    yield MAIN, main
    if refine_steps:
        yield REFINED, pipe.refine(main, [view], num_steps=refine_steps)
    yield "feed-forward, true matte", pipe(person.cut_out, seed=0, refine_steps=0).avatar
    truth = {"rig_params": person.rig_params, "cameras": person.portrait_camera}
    out = pipe(person.cut_out, seed=0, refine_steps=0, **truth)
    yield "feed-forward, true matte and head", out.avatar
    if looks:
        points, true_betas = _true_points(person, rig), person.rig_params.betas[0]
        moved = move_to_shape(points, rig, betas - true_betas)
        yield "true points", avatar(dress_points(moved, view, rig, decoder), moved)
        true_view = out.tracked[0].view(pipe.config.view_size)
        gaussians = dress_points(points, true_view, rig, decoder)
        yield "true points and head", Avatar(gaussians, points.bindings, rig, true_betas)


def _true_points(person: Person, rig: HeadRig) -> CanonicalPoints:
    """The person's own cloud, every strand where it is: what no photograph tells."""
    subject = build_subject(person.seed, resolution=rig.config.resolution)
    cloud = sample_cloud(
        subject, num_skin_points=TRUE_POINTS, hair_budget=TRUE_POINTS, own_every_face=True
    )
    bindings = torch.from_numpy(cloud.bindings).long()
    return CanonicalPoints(torch.from_numpy(cloud.means).float(), bindings)


def _decode_alone(
    pipe: AvatarPipeline, cloud: CanonicalPoints, hidden: Tensor, context: Tensor
) -> Gaussians:
    """By a decoder that does not look at the photograph."""
    return pipe.decode_gaussians([cloud], hidden, context)[0]


def _color_once(cloud: SurfaceCloud, view: PortraitView, pipe: AvatarPipeline) -> Gaussians:
    projected = _project(cloud, view, pipe)
    return cloud.to_gaussians(color_points(cloud, projected, view, pipe.rig, num_rounds=0))


def _decode_once(cloud: SurfaceCloud, view: PortraitView, pipe: AvatarPipeline) -> Gaussians:
    sights = see_points(cloud, _project(cloud, view, pipe), view, pipe.rig)
    return decode_points(pipe.gaussian_decoder, cloud, sights)


def _project(cloud: SurfaceCloud, view: PortraitView, pipe: AvatarPipeline) -> object:
    return project_onto_portrait(
        cloud.points,
        pipe.rig,
        view.rig_params,
        view.cameras,
        view.matte,
        normals=cloud.normals,
        kinds=cloud.kinds,
    )
