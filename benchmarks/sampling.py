# SPDX-License-Identifier: Apache-2.0
"""Which sampling gives the best clouds? python benchmarks/sampling.py [--model DIR] [--output FILE]

Draws clouds of held-out people, not those of identity.py, under several settings, and measures how
far generated points are from true ones and true points from generated ones, before and after the
clouds are laid onto the tracked head; and how many faces are left without a point. Of a generator
whose clouds are sorted by faces:

python benchmarks/sampling.py --grammars types faces every_face --own_every_face
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import HfArgumentParser

from pointillist_hf import AvatarPipeline
from pointillist_hf.data.population.cloud import sample_cloud
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig
from pointillist_hf.evaluation.identification import draw_people, take_portrait
from pointillist_hf.evaluation.rankings import rank_correlation
from pointillist_hf.rigs.alignment import align_to_shape

TEMPERATURES, MIN_PS = (1.0, 0.85), (0.05, 0.1)
MM = 1000.0


@dataclass
class Arguments:
    """The model; the data set's settings must be its own."""

    model: str = "model_cards/pointillist-tiny"
    output: str = "outputs/sampling.json"
    num_people: int = 12
    first_person: int = 16
    num_skin_points: int = 600
    hair_budget: int = 450
    own_every_face: bool = False
    grammars: list[str] = field(default_factory=lambda: ["types", "full"])


def mean_distances(made: Tensor, true: Tensor) -> tuple[float, float]:
    """From each made point to the nearest true one and the other way, mm. [N, 3], [M, 3]"""
    distances = torch.cdist(made, true)
    return MM * float(distances.amin(1).mean()), MM * float(distances.amin(0).mean())


def measure(
    pipe: AvatarPipeline, portraits: list[Image.Image], truth: list[Tensor], **sampling: object
) -> dict[str, float]:
    tracked = pipe.track_portraits(portraits)
    rig_params, context, layouts = pipe.encode_image(portraits, None, tracked)
    seeds = [0] * len(portraits)
    made = pipe.generate_tokens(context, rig_params, layouts, seeds=seeds, **sampling)
    rows: dict[str, list[float]] = {}
    for ids, true, betas in zip(made.input_ids, truth, rig_params.betas, strict=True):
        cloud = pipe.tokenizer.decode_points(ids)
        aligned = align_to_shape(cloud, pipe.rig, betas)
        for name, made in (("raw", cloud), ("aligned", aligned)):
            there, back = mean_distances(made.means, true)
            rows.setdefault(f"{name}_to_true_mm", []).append(there)
            rows.setdefault(f"true_to_{name}_mm", []).append(back)
        rows.setdefault("points", []).append(len(cloud))
        bare = pipe.tokenizer.num_faces - len(cloud.bindings.unique())
        rows.setdefault("bare_faces", []).append(bare)
    counts, true_counts = torch.tensor(rows["points"]), torch.tensor([len(t) for t in truth])
    means = {name: round(sum(values) / len(values), 2) for name, values in rows.items()}
    return {**means, "count_rank_correlation": round(rank_correlation(counts, true_counts), 2)}


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    names = ("num_skin_points", "hair_budget", "own_every_face")
    points = {name: getattr(arguments, name) for name in names}
    config = SyntheticDatasetConfig(**points)
    pipe = AvatarPipeline.from_pretrained(arguments.model)
    pipe.set_progress_bar_config(disable=True)
    people = list(draw_people("test", arguments.num_people, config, first=arguments.first_person))
    portraits = [take_portrait(person) for person in people]
    truth = [torch.from_numpy(sample_cloud(p, **points).means).float() for p in people]
    print("true points", sum(map(len, truth)) / len(truth))
    results = []
    for grammar, temperature, min_p in product(arguments.grammars, TEMPERATURES, MIN_PS):
        sampling = {"grammar": grammar, "temperature": temperature, "min_p": min_p}
        results.append({**sampling, **measure(pipe, portraits, truth, **sampling)})
        print(results[-1], flush=True)
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
