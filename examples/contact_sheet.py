# SPDX-License-Identifier: Apache-2.0
"""Uncurated people on one sheet: python examples/contact_sheet.py [--model DIR] [--output FILE].

A row for each of some held-out synthetic people, one after the other as their seeds come, nobody
left out: portrait, points in the order of their generation, front, side, back, smile, jaw open, and
the motion of the next person. Who is not found in the portrait keeps an empty row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from demo import EXPRESSIONS, generation_order
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from pointillist_hf import AvatarPipeline, AvatarPipelineOutput
from pointillist_hf.data.population.photography import sample_motion, take_snapshots
from pointillist_hf.data.population.subject import Subject, build_subject
from pointillist_hf.data.tokens.synthetic import FIRST_SEED
from pointillist_hf.exporters.images import write_contact_sheet
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import RigParams
from pointillist_hf.rigs.head_rig import HeadRig

PORTRAIT_SIZE = 384
ROUND = {"front": 0.0, "side": 90.0, "back": 180.0}
MOVED = ("smile", "jaw open")
COLUMNS = ("portrait", "points", *ROUND, *MOVED, "driven")


@dataclass
class Arguments:
    """Who is shown, made with what, and where it goes."""

    model: str = "model_cards/pointillist-tiny"
    output: str = "outputs/contact_sheet.png"
    avatars: str | None = None  # a folder for the avatars; `benchmarks/poses.py` takes them over
    num_people: int = 16
    first_person: int = 0
    size: int = 224
    seed: int = 0
    refine_steps: int = 0


def take_portrait(subject: Subject, rig: HeadRig) -> Image.Image:
    """A photograph of the person before a plain colour."""
    cut_out = take_snapshots(subject, rig, 1, size=PORTRAIT_SIZE).images[0]
    backdrop = np.random.default_rng([subject.identity.seed, 9]).uniform(0.3, 0.9, 3)
    color, alpha = cut_out[..., :3], cut_out[..., 3:]
    picture = color * alpha + backdrop * (1 - alpha)
    return Image.fromarray((255 * picture).round().clip(0, 255).astype(np.uint8))


def motion_of(subject: Subject, rig: HeadRig) -> RigParams:
    """A lively frame of a person."""
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    rng = np.random.default_rng([subject.identity.seed, 11])
    return sample_motion(rig, betas, 1, rng, strength=1.0)


def draw_row(
    pipe: AvatarPipeline, made: AvatarPipelineOutput, driver: RigParams, size: int
) -> list[Tensor]:
    """All columns after the portrait. [H, W, 3] each"""
    avatar = made.avatar
    around = orbit_cameras(list(ROUND.values()), width=size, height=size)
    frames = [avatar.rig_params(weights, **poses) for weights, poses in map(EXPRESSIONS.get, MOVED)]
    moved = [avatar.animate(frame).render(around[:1]) for frame in (*frames, driver)]
    points = pipe.tokenizer.decode_points(made.input_ids[0])
    return list(torch.cat([generation_order(points, size), avatar.render(around), *moved]))


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    size, pipe = arguments.size, AvatarPipeline.from_pretrained(arguments.model)
    pipe.set_progress_bar_config(disable=True)
    first = FIRST_SEED["test"] + arguments.first_person
    seeds = range(first, first + arguments.num_people)
    pictures, labels = [], []
    for seed in tqdm(seeds, "people"):
        subject, other = (
            build_subject(number, resolution=pipe.rig.config.resolution)
            for number in (seed, seed + 1)
        )
        portrait = take_portrait(subject, pipe.rig)
        shown = torch.from_numpy(np.array(portrait.resize((size, size)))).float() / 255
        row, names = [torch.ones(size, size, 3)] * (len(COLUMNS) - 1), list(COLUMNS)
        try:
            made = pipe(portrait, seed=arguments.seed, refine_steps=arguments.refine_steps)
        except ValueError as error:  # no face is found
            names[1:] = [str(error).split(":")[0][:24], *[""] * (len(COLUMNS) - 2)]
        else:
            row = draw_row(pipe, made, motion_of(other, pipe.rig), size)
            if arguments.avatars is not None:
                made.avatar.save_pretrained(Path(arguments.avatars) / str(seed))
            names[1] = f"{int((made.input_ids[0] < pipe.tokenizer.bos_token_id).sum()) // 4} points"
        pictures += [shown, *row]
        labels += names
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_contact_sheet(torch.stack(pictures), output, columns=len(COLUMNS), labels=labels)
    print(f"{arguments.num_people} people: {output}")


if __name__ == "__main__":
    main()
