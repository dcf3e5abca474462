# SPDX-License-Identifier: Apache-2.0
"""Does the model look at its input? Prints the figures of the model card.

python benchmarks/identity.py [--model DIR] [--output DIR]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import HfArgumentParser

from pointillist_hf import AvatarPipeline
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig
from pointillist_hf.evaluation.identification import identify_people
from pointillist_hf.exporters.images import write_contact_sheet


@dataclass
class Arguments:
    """The model, and where the pictures go. The data set's settings must be the model's own."""

    model: str = "model_cards/pointillist-tiny"
    output: str = "outputs/identity"
    num_people: int = 16
    first_person: int = 0
    num_skin_points: int = 600
    hair_budget: int = 450
    use_accessories: bool = True
    seed: int = 0


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    config = SyntheticDatasetConfig(
        num_skin_points=arguments.num_skin_points,
        hair_budget=arguments.hair_budget,
        use_accessories=arguments.use_accessories,
    )
    pipe = AvatarPipeline.from_pretrained(arguments.model)
    result = identify_people(
        pipe,
        config,
        num_people=arguments.num_people,
        first_person=arguments.first_person,
        seed=arguments.seed,
    )
    figures = {
        "people": arguments.num_people,
        "nearest_is_own": result.num_correct,
        "psnr_db": round(float(result.psnr.mean()), 2),
        "mean_picture_psnr_db": round(float(result.mean_psnr.mean()), 2),
        "gain_db": round(result.gain, 2),
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
    write_contact_sheet(
        result.pictures.transpose(0, 1).flatten(0, 1),
        folder / "identity.png",
        columns=arguments.num_people,
    )
    print(f"portraits, avatars and ground truth: {folder / 'identity.png'}")


if __name__ == "__main__":
    main()
