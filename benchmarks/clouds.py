# SPDX-License-Identifier: Apache-2.0
"""What does a generator draw? Its clouds against the true ones of held-out people.

python benchmarks/clouds.py [--data DIR] [--model DIR] [--num_people N] [--output FILE]

Points per region, distances, floaters, holes, how far skin follows the head, and the likelihood of
the true clouds under the right, the mean and a wrong head. The generator is told the true heads of
the data set unless --use_tracker True; the portraits are the data set's. Without a data set, one is
made that the model has not seen, with the model's bins.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from pointillist_hf import AvatarPipeline
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.evaluation.cloud_agreement import (
    compare_clouds,
    compare_counts,
    count_regions,
    follow_slope,
)
from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.pipeline_steps import SAMPLING
from pointillist_hf.training.dataset import People, load_people, with_token_order
from pointillist_hf.training.generator_checks import Head, validate_generator
from pointillist_hf.training.portraits import portrait_pixels
from pointillist_hf.training.train_decoder import composite
from pointillist_hf.training.train_generator import GeneratorTraining

GREY = 0.6  # behind portraits that are tracked


@dataclass
class Arguments:
    """The model, the people, and where the figures go."""

    data: str | None = None
    model: str = "model_cards/pointillist-tiny"
    output: str = "outputs/clouds.json"
    split: str = "test"
    num_people: int = 64
    # people whose clouds are scored; 0 where the model has other bins
    num_scored: int = 8
    batch_size: int = 8
    use_tracker: bool = False
    seed: int = 0
    # of the sampling; what is not given is the model's own
    grammar: str | None = None
    temperature: float | None = None
    min_p: float | None = None
    guidance_scale: float | None = None
    max_points: int | None = None
    num_candidates: int | None = None


def make_people(num_people: int, num_bins: int, folder: Path) -> Path:
    """A data set of test people, as `docs/data.md` makes those of a generator of thousands."""
    config = SyntheticDatasetConfig(
        num_train=1,
        num_test=num_people,
        num_bins=num_bins,
        num_skin_points=4200,
        hair_budget=1100,
        own_every_face=True,
        num_portraits=1,
        num_views=0,
        use_snapshots=True,
    )
    return build_synthetic_dataset(folder, config)


def draw_clouds(
    pipe: AvatarPipeline, people: People, arguments: Arguments
) -> tuple[list[CanonicalPoints], Tensor, float]:
    """The clouds of the first people, the heads they are to lie on [K, S], and seconds a cloud."""
    sampling = {name: getattr(arguments, name) for name in SAMPLING}
    count = min(arguments.num_people, len(people))
    clouds, betas, seconds = [], [], 0.0
    for start in tqdm(range(0, count, arguments.batch_size), "clouds"):
        rows = range(start, min(start + arguments.batch_size, count))
        context, heads, layouts = encode_people(
            pipe, people, rows, use_tracker=arguments.use_tracker
        )
        began = time.perf_counter()
        made = pipe.generate_tokens(
            context,
            pipe.rig.neutral(betas=heads),
            layouts,
            seeds=[arguments.seed + i for i in rows],
            **sampling,
        )
        seconds += time.perf_counter() - began
        clouds += [pipe.tokenizer.decode_points(ids) for ids in made.input_ids]
        betas.append(heads)
    return clouds, torch.cat(betas), seconds / count


def encode_people(
    pipe: AvatarPipeline, people: People, rows: range, *, use_tracker: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Conditioning tokens [B, M, D] of some people's first portraits, heads [B, S], layouts."""
    if use_tracker:
        pixels = [people.persons[i].portraits[0].float() / 255 for i in rows]
        images = [composite(one, torch.full((3,), GREY)).permute(2, 0, 1) for one in pixels]
        tracked = pipe.track_portraits(images)
        rig_params, context, layouts = pipe.encode_image(images, None, tracked)
        return context, rig_params.betas, layouts
    betas = torch.stack([people.persons[i].betas for i in rows])
    portraits = [people.persons[i].portraits[:1] / 255 for i in rows]
    pixels = torch.cat([portrait_pixels(one, pipe.image_processor) for one in portraits])
    num_points = pipe.conditioner.config.point_cloud_config.num_points
    rig_points = people.rig.sample_points(betas, num_points)
    context, layouts = pipe.conditioner(pixels, rig_points, return_layouts=True)
    return context, betas, layouts


def score(pipe: AvatarPipeline, people: People, count: int) -> dict[str, dict[str, float]]:
    """Nats of the true clouds, as the generator is told of several heads."""
    networks = GeneratorTraining(pipe.conditioner, pipe.point_generator).eval()
    return {
        head: _rounded(validate_generator(networks, people, pipe.image_processor, count, head), 3)
        for head in get_args(Head)
    }


def measure(pipe: AvatarPipeline, people: People, arguments: Arguments) -> dict[str, object]:
    clouds, heads, seconds = draw_clouds(pipe, people, arguments)
    persons = people.persons[: len(clouds)]
    truth = [people.tokenizer.decode_points(person.input_ids) for person in persons]
    own = torch.stack([person.betas for person in persons])
    rows = [
        compare_clouds(made, true, people.rig, betas)
        for made, true, betas in zip(clouds, truth, own, strict=True)
    ]
    made, true = (
        [count_regions(cloud, people.rig, b) for cloud, b in zip(some, betas, strict=True)]
        for some, betas in ((clouds, heads), (truth, own))
    )
    figures: dict[str, object] = {
        "people": len(clouds),
        "seconds_per_cloud": round(seconds, 2),
        **_rounded({name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}, 2),
        "worst_floaters": max(row["floaters"] for row in rows),
        **_rounded(
            {
                "follow_slope": follow_slope(clouds, people.rig, heads),
                "true_follow_slope": follow_slope(truth, people.rig, own),
            },
            3,
        ),
        "points": {name: _rounded(row, 3) for name, row in compare_counts(made, true).items()},
    }
    if arguments.num_scored and pipe.tokenizer.num_bins == people.tokenizer.num_bins:
        figures["nats"] = score(pipe, people, arguments.num_scored)
    return figures


def _rounded(figures: dict[str, float | None], digits: int) -> dict[str, float | None]:
    return {
        name: None if value is None else round(value, digits) for name, value in figures.items()
    }


@torch.no_grad()
def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    pipe = AvatarPipeline.from_pretrained(arguments.model)
    pipe.set_progress_bar_config(disable=True)
    output = Path(arguments.output)
    data = arguments.data or make_people(
        arguments.num_people, pipe.tokenizer.num_bins, output.with_suffix("") / "people"
    )
    people = load_people(data, arguments.split, on_disk=True)
    people = with_token_order(people, pipe.tokenizer.token_order)
    figures = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("pointillist-hf", "torch", "transformers")},
        "settings": {**vars(arguments)},
        **measure(pipe, people, arguments),
    }
    text = json.dumps(figures, indent=1)
    print(text)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
