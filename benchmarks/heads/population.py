# SPDX-License-Identifier: Apache-2.0
"""Synthetic people whose other views are known: one portrait in, scored from the side.

Nobody of the test split was seen in training. The portrait stands before a plain colour, and the
tracker finds the matte; all pictures of a person are taken in one light. The avatar moves by the
true parameters and is seen by the true cameras, so what is measured is the avatar itself. One
photograph cannot tell a small head from a far one: the avatar is scaled and shifted, not turned,
until the face of its rig is as large as the true one and at its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pointillist_hf import Avatar, AvatarPipeline
from pointillist_hf.data.population.photography import (
    light_of,
    portrait_cameras,
    pose_subject,
    take_portraits,
)
from pointillist_hf.data.population.scene import render_frame
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.evaluation.likeness import Likeness
from pointillist_hf.exporters.images import write_contact_sheet
from pointillist_hf.geometry.rotations import nearest_rotation
from pointillist_hf.geometry.structures import Cameras, Gaussians, RigParams
from pointillist_hf.refinement.face_kinds import find_face_kinds
from pointillist_hf.refinement.tracked_portrait import TrackedPortrait
from pointillist_hf.rigs.head_rig import HeadRig

from .regions import (
    RIM,
    above_chin,
    draw,
    face_distances,
    find_face,
    grow,
    masked_psnr,
    mean,
    measure_holes,
    place_faces,
    silhouette_overlap,
    split_error,
)
from .variants import MAIN, REFINED, make_variants

FIRST_SEED = 2_000_000
AZIMUTHS = (-40.0, -20.0, 20.0, 40.0)
SIZE = 384


@dataclass(frozen=True)
class Person:
    """A portrait, and what the avatar should look like."""

    seed: int
    hair_style: str
    image: Image.Image  # before a plain colour
    cut_out: Image.Image  # with alpha
    rig_params: RigParams  # one frame, of the portrait and of the views
    portrait_camera: Cameras
    cameras: Cameras  # of the views
    views: Tensor  # [4, H, W, 3] on white
    mattes: Tensor  # [4, H, W]
    is_head: Tensor  # [4, H, W] above the end of the head
    is_face: Tensor  # [4, H, W]


def photograph_person(seed: int, rig: HeadRig, azimuths: tuple[float, ...] = AZIMUTHS) -> Person:
    """The person of a seed, and views from some sides, degrees."""
    subject = build_subject(seed, resolution=rig.config.resolution)
    light = light_of(subject)
    taken = take_portraits(subject, rig, 1, size=SIZE, lighting=light)
    cut_out = taken.images[0]
    backdrop = np.random.default_rng([seed, 9]).uniform(0.3, 0.9, 3)
    image = cut_out[..., :3] * cut_out[..., 3:] + backdrop * (1 - cut_out[..., 3:])
    cameras = portrait_cameras(list(azimuths), [0.0] * len(azimuths), size=SIZE)
    posed = pose_subject(subject, rig, taken.rig_params)[0]
    views = [
        torch.from_numpy(render_frame(posed, cameras[i : i + 1], lighting=light))
        for i in range(len(cameras))
    ]
    views, mattes = torch.stack(views).split([3, 1], dim=-1)
    return Person(
        seed=seed,
        hair_style=subject.identity.hair_style,
        image=_to_picture(image),
        cut_out=_to_picture(cut_out),
        rig_params=taken.rig_params,
        portrait_camera=taken.cameras,
        cameras=cameras,
        views=views * mattes + 1 - mattes,
        mattes=mattes[..., 0],
        is_head=above_chin(rig, taken.rig_params, cameras),
        is_face=find_face(rig, taken.rig_params, cameras),
    )


def _to_picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * values).round().clip(0, 255).astype(np.uint8))


def measure_avatar(
    avatar: Avatar, person: Person, likeness: Likeness, truth: list[Tensor | None]
) -> tuple[dict[str, float | None], Tensor]:
    """Figures, means over the views; and the views. [4, H, W, 3]"""
    posed = fit_size(avatar, avatar.animate(person.rig_params).gaussians[0], person)
    images, alphas = draw(posed, person.cameras)
    matte = person.mattes > 0.5
    inside, rim = matte & person.is_head, grow(matte, RIM) & person.is_head
    score = partial(masked_psnr, images, person.views)
    distances = face_distances(place_faces(likeness, images), truth)
    errors = (images - person.views).square().mean(-1)
    figures = {
        "points": len(avatar),
        "head_db": mean(score(rim)),
        "inside_db": mean(score(inside)),
        "face_db": mean(score(matte & person.is_face)),
        "all_db": mean(score(grow(matte, RIM))),
        "likeness": mean(distances),
        "faces_found": sum(d is not None for d in distances),
        "overlap": mean(silhouette_overlap(alphas, person.mattes, person.is_head)),
        "holes_percent": mean(measure_holes(alphas, person.mattes)),
        **ear_errors(avatar, posed.means, person),
        **split_error(errors, alphas, person.mattes, person.is_face, rim),
    }
    return figures, images


def fit_size(avatar: Avatar, posed: Gaussians, person: Person) -> Gaussians:
    """The avatar at the size and the place of the true face."""
    middle, scale, target = match_faces(avatar, person)
    means = (posed.means - middle) * scale + target
    return replace(posed, means=means, scales=posed.scales * scale)


def match_faces(avatar: Avatar, person: Person) -> tuple[Tensor, Tensor, Tensor]:
    """Middle of the avatar's face, true size over its size, middle of the true face."""
    face = avatar.rig.mask("face")
    ours, theirs = (avatar.rig(p)[0, face] for p in (own_params(avatar, person), person.rig_params))
    middle, target = ours.mean(0), theirs.mean(0)
    scale = (theirs - target).square().sum().sqrt() / (ours - middle).square().sum().sqrt()
    return middle, scale, target


def own_params(avatar: Avatar, person: Person) -> RigParams:
    """The true frame, with the identity of the avatar."""
    return replace(person.rig_params, betas=avatar.betas[None])


def turn_error(tracked: TrackedPortrait, person: Person, rig: HeadRig) -> dict[str, float]:
    """How far the head was found turned from how it is, as the camera sees it, degrees."""
    face, turns = rig.mask("face"), []
    rest = rig.v_template[face] - rig.v_template[face].mean(0)
    for params, camera in (
        (tracked.rig_params, tracked.cameras),
        (person.rig_params, person.portrait_camera),
    ):
        posed = rig(params)[0, face] @ camera.viewmats[0, :3, :3].T
        turns.append(nearest_rotation((posed - posed.mean(0)).T @ rest))
    # Near zero, the entries of the axis are those of the matrix off its diagonal.
    turn = turns[1].T @ turns[0]
    pitch, yaw, roll = turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]
    angles = {"pitch": pitch, "yaw": yaw, "roll": roll}
    return {n: round(math.degrees(float(a) / 2), 2) for n, a in angles.items()}


def ear_errors(avatar: Avatar, means: Tensor, person: Person) -> dict[str, float]:
    """Millimetres from the true ears: of the fitted rig's vertices, and of the avatar's points."""
    rig, errors, points = avatar.rig, [], []
    is_ear = find_face_kinds(rig).is_ear
    middle, scale, target = match_faces(avatar, person)
    ours = (rig(own_params(avatar, person))[0] - middle) * scale + target
    ours, theirs = (v[rig.faces].mean(1) for v in (ours, rig(person.rig_params)[0]))
    for side in (1, -1):
        ear = is_ear & (side * rig.v_template[rig.faces].mean(1)[:, 0] > 0)
        errors.append(torch.dist(ours[ear].mean(0), theirs[ear].mean(0)))
        bound = ear[avatar.bindings]
        if bound.any():
            # The middle of the same faces, so that it does not matter how points are spread.
            gap = means[bound] - theirs[avatar.bindings[bound]]
            points.append(gap.mean(0).norm())
    return {
        "ear_mm": 1000 * float(torch.stack(errors).mean()),
        "ear_points_mm": 1000 * float(torch.stack(points).mean()) if points else None,
    }


def measure_person(
    pipe: AvatarPipeline, likeness: Likeness, seed: int, folder: Path, *, refine_steps: int
) -> dict:
    """All variants of one person; kept in the folder, with a sheet to look at."""
    cache = folder / f"{seed}.json"
    if cache.is_file():
        return json.loads(cache.read_text())
    person = photograph_person(seed, pipe.rig)
    truth = place_faces(likeness, person.views)
    tracked = pipe.track_portraits([person.image])
    turn = turn_error(tracked[0], person, pipe.rig)
    rows, pictures = {}, {}
    for name, avatar in make_variants(pipe, person, tracked, refine_steps=refine_steps):
        rows[name], pictures[name] = measure_avatar(avatar, person, likeness, truth)
    portrait = torch.from_numpy(np.array(person.image)).float()[None] / 255
    shown = [name for name in pictures if name in (MAIN, REFINED)] or list(pictures)
    sheet = [portrait, person.views]
    for name in shown:
        sheet += [torch.ones_like(portrait), pictures[name]]
    labels = ["portrait", *(f"truth {a:+.0f}" for a in AZIMUTHS)]
    for name in shown:
        labels += [name, *("" for _ in AZIMUTHS)]
    write_contact_sheet(torch.cat(sheet), folder / f"{seed}.png", columns=5, labels=labels)
    result = {"seed": seed, "hair": person.hair_style, "turned_degrees": turn, "variants": rows}
    cache.write_text(json.dumps(result, indent=2) + "\n")
    return result


def average(people: list[dict]) -> dict[str, dict]:
    """Means over people, for each variant."""
    names = list(dict.fromkeys(name for person in people for name in person["variants"]))
    table = {}
    for name in names:
        rows = [p["variants"][name] for p in people if name in p["variants"]]
        table[name] = {key: mean([row[key] for row in rows]) for key in rows[0]}
    return table


def print_table(table: dict[str, dict]) -> Iterator[str]:
    """Lines to look at."""
    columns = list(next(iter(table.values())))
    yield f"{'':34s}" + "".join(f"{column[:12]:>13s}" for column in columns)
    for name, row in table.items():
        yield f"{name:34s}" + "".join(
            f"{row[c] if row[c] is not None else '-':>13}" for c in columns
        )
