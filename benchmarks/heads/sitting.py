# SPDX-License-Identifier: Apache-2.0
"""One photograph: how well the avatar lies on it, and who it is when it turns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pointillist_hf import Avatar, AvatarPipeline, AvatarPipelineOutput
from pointillist_hf.evaluation.likeness import Likeness
from pointillist_hf.exporters.images import write_contact_sheet
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import RigParams
from pointillist_hf.portraits.portrait import CHIN
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds
from pointillist_hf.refinement.pixel_kinds import classify_pixels
from pointillist_hf.refinement.portrait_view import PortraitView
from pointillist_hf.rigs.head_rig import HeadRig

from .regions import (
    BELOW_CHIN,
    EDGE,
    RIM,
    draw,
    face_distances,
    grow,
    masked_psnr,
    measure_holes,
    place_faces,
    share_outside,
)

AZIMUTHS = (-40.0, -20.0, 0.0, 20.0, 40.0)
SIZE = 384


@dataclass(frozen=True)
class Sitting:
    """Figures and pictures of one avatar of one photograph."""

    figures: dict[str, float | None]
    pictures: Tensor  # [6, H, W, 3] on the photograph, then turned


def facing_front(rig_params: RigParams) -> RigParams:
    """The same expression, the head at rest."""
    still = {n: torch.zeros(1, 3) for n in ("global_orient", "neck_pose", "transl")}
    return replace(rig_params, **still)


def find_head(view: PortraitView, rig: HeadRig) -> tuple[Tensor, Tensor]:
    """Skin and hair down to a little below the chin, and the background next to it. [1, H, W]"""
    end = float(view.landmarks[CHIN, 1]) + BELOW_CHIN * view.eye_distance
    above = (torch.arange(len(view.matte)) + 0.5 < end)[:, None] & view.inside
    kinds = classify_pixels(view, rig, find_face_kinds(rig))
    head = above & ((kinds == PointKind.SKIN) | (kinds == PointKind.HAIR))
    beside = grow(head[None], RIM) & above & (view.matte <= 0.5)
    return head[None], beside


def sit(result: AvatarPipelineOutput, avatar: Avatar, likeness: Likeness) -> Sitting:
    """Measures one avatar against its photograph."""
    view, params = result.tracked[0].view(SIZE), result.rig_params[:1]
    matte = view.matte[..., None]
    # Pixels of the soft border hold the background too, which is nothing of the head's.
    truth = (view.foreground * matte + 1 - matte)[None]
    images, alphas = draw(avatar.animate(params).gaussians[0], view.cameras)
    head, beside = find_head(view, avatar.rig)
    subject = (view.matte > 0.5)[None]
    cameras = orbit_cameras(AZIMUTHS, width=SIZE, height=SIZE)
    turned, side_alphas = draw(avatar.animate(facing_front(params)).gaussians[0], cameras)
    own = likeness.embed(result.portraits[0])
    places = place_faces(likeness, [images[0], *turned])
    distances = face_distances(places, [own] * len(places))
    names = ("on_photograph", *(f"{azimuth:+.0f}" for azimuth in AZIMUTHS))
    figures = {
        "points": len(avatar),
        "head_db": masked_psnr(images, truth, head)[0],
        "inner_db": masked_psnr(images, truth, ~grow(~head, EDGE))[0],
        "head_and_rim_db": masked_psnr(images, truth, head | beside)[0],
        **{f"likeness_{n}": d for n, d in zip(names, distances, strict=True)},
        "opacity_outside_percent": share_outside(alphas * view.inside, grow(subject, RIM))[0],
        "holes_percent": max(measure_holes(torch.cat([alphas, side_alphas]))),
    }
    rounded = {n: v if v is None else round(v, 3) for n, v in figures.items()}
    return Sitting(rounded, torch.cat([images, turned]))


def measure_photograph(
    pipe: AvatarPipeline, likeness: Likeness, path: Path, folder: Path, *, refine_steps: int
) -> dict[str, dict]:
    """Feed-forward and refined; writes a sheet of both."""
    result = pipe(Image.open(path).convert("RGB"), seed=0, refine_steps=0)
    view = result.tracked[0].view(SIZE)
    plain = sit(result, result.avatar, likeness)
    better = pipe.refine(result.avatar, [view], num_steps=refine_steps)
    refined = sit(result, better, likeness)
    pictures = torch.cat(
        [
            view.image[None],
            plain.pictures,
            view.matte[..., None].expand_as(view.image)[None],
            refined.pictures,
        ]
    )
    labels = ["photograph", "feed-forward", *(f"{a:+.0f}" for a in AZIMUTHS)]
    labels += ["matte", f"refined, {refine_steps}", *(f"{a:+.0f}" for a in AZIMUTHS)]
    write_contact_sheet(pictures, folder / f"{path.stem}.png", columns=7, labels=labels)
    return {"feed_forward": plain.figures, "refined": refined.figures}
