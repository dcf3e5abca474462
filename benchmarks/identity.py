# SPDX-License-Identifier: Apache-2.0
"""Does the model look at its input? Prints the figures of the model card.

python benchmarks/identity.py [--model DIR] [--num_people N] [--output DIR]

One portrait each of people whom the model has not seen, through the whole pipeline. The avatar is
seen by a camera that no portrait uses and compared with the truth: as it is, in studio light; and
"matched", in the light of the portrait and with the face as large as the true one.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from transformers import HfArgumentParser

from pointillist_hf import AvatarPipeline
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig
from pointillist_hf.evaluation.identification import identify_people
from pointillist_hf.exporters.images import write_contact_sheet

COLUMNS = 16  # of the sheet


@dataclass
class Arguments:
    """The model, and where the pictures go. The data set's settings must be the model's own."""

    model: str = "model_cards/pointillist-tiny"
    output: str = "outputs/identity"
    num_people: int = 32
    first_person: int = 0
    num_skin_points: int = 4200
    hair_budget: int = 1100
    own_every_face: bool = True
    use_accessories: bool = True
    seed: int = 0


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    config = SyntheticDatasetConfig(
        num_skin_points=arguments.num_skin_points,
        hair_budget=arguments.hair_budget,
        own_every_face=arguments.own_every_face,
        use_accessories=arguments.use_accessories,
    )
    pipe = AvatarPipeline.from_pretrained(arguments.model)
    pipe.set_progress_bar_config(disable=True)
    used = time.process_time()
    result = identify_people(
        pipe,
        config,
        num_people=arguments.num_people,
        first_person=arguments.first_person,
        seed=arguments.seed,
    )
    figures = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("pointillist-hf", "torch", "transformers")},
        "cpu_seconds": round(time.process_time() - used),
        "people": arguments.num_people,
        "nearest_is_own": result.num_correct,
        "psnr_db": round(float(result.psnr.mean()), 2),
        "psnr_db_of_each": [round(value, 2) for value in result.psnr.tolist()],
        "matched_nearest_is_own": result.num_matched_correct,
        "matched_psnr_db": round(float(result.matched_psnr.mean()), 2),
        "matched_psnr_db_of_each": [round(value, 2) for value in result.matched_psnr.tolist()],
        "mean_picture_psnr_db": round(float(result.mean_psnr.mean()), 2),
        "gain_db": round(result.gain, 2),
        "point_count_correlation": correlate(result.num_points, result.true_num_points),
        "point_count_rank_correlation": round(result.count_correlation, 2),
    }
    for name, value in figures.items():
        print(f"{name:30s} {value}")
    print(f"{'hair':12s} generated  true")
    rows = zip(result.hair_styles, result.num_points, result.true_num_points, strict=True)
    for style, made, true in sorted(rows, key=lambda row: int(row[2])):
        print(f"{style:12s} {int(made):9d} {int(true):5d}")
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "identity.json").write_text(json.dumps(figures, indent=2) + "\n")
    columns = min(COLUMNS, arguments.num_people)
    pictures = lay_out(result.pictures, columns)
    write_contact_sheet(pictures, folder / "identity.png", columns=columns)
    print(f"portraits, avatars and ground truth: {folder / 'identity.png'}")


def correlate(made: Tensor, true: Tensor) -> float:
    """Pearson's, which knows how much hair differs, as ranks do not."""
    return round(float(torch.corrcoef(torch.stack([made.double(), true.double()]))[0, 1]), 2)


def lay_out(pictures: Tensor, columns: int) -> Tensor:
    """Three rows for every so many people. [K, 3, H, W, 3] -> [3 K', H, W, 3]"""
    missing = -len(pictures) % columns
    padded = torch.cat([pictures, torch.ones_like(pictures[:1]).repeat(missing, 1, 1, 1, 1)])
    return padded.unflatten(0, (-1, columns)).transpose(1, 2).flatten(0, 2)


if __name__ == "__main__":
    main()
