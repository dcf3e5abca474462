# SPDX-License-Identifier: Apache-2.0
"""Joins trained components: python examples/assemble.py --components DIR --output DIR.

The result is a pipeline folder that AvatarPipeline.from_pretrained reads, in bfloat16 by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import HfArgumentParser

from pointillist_hf import (
    AvatarConditioner,
    AvatarPipeline,
    GaussianDecoder,
    PointGeneratorForCausalLM,
    PointTokenizer,
    PortraitImageProcessor,
    PortraitTracker,
    ProceduralHeadRig,
    RigRegressor,
)
from pointillist_hf.publishing.manifest import describe_parts

TRAINED = ("rig_regressor", "conditioner", "point_generator", "gaussian_decoder")


@dataclass
class Arguments:
    """Folders, and the sampling that the pipeline starts with."""

    components: str
    output: str
    max_points: int = 1400
    grammar: str = "full"
    temperature: float = 0.85
    min_p: float = 0.05
    align_points: bool = True
    tracker: str = "model_cards/pointillist-tiny/portrait_tracker"
    complete_points: bool = True
    dtype: str = "bfloat16"
    # what is said of the trained parts when somebody publishes them
    source: str = "trained on the synthetic population of pointillist_hf"
    licence: str = "apache-2.0"


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    folder, dtype = Path(arguments.components), getattr(torch, arguments.dtype)
    rig = ProceduralHeadRig.from_pretrained(folder / "rig")
    rig.register_to_config(_name_or_path="")  # whoever loads it next need not know our folders
    pipe = AvatarPipeline(
        image_processor=PortraitImageProcessor.from_pretrained(folder / "image_processor"),
        rig_regressor=RigRegressor.from_pretrained(folder / "rig_regressor", dtype=dtype),
        rig=rig,
        conditioner=AvatarConditioner.from_pretrained(folder / "conditioner", dtype=dtype),
        tokenizer=PointTokenizer.from_pretrained(folder / "tokenizer"),
        point_generator=PointGeneratorForCausalLM.from_pretrained(
            folder / "point_generator", dtype=dtype
        ),
        portrait_tracker=PortraitTracker.from_pretrained(arguments.tracker),
        gaussian_decoder=GaussianDecoder.from_pretrained(folder / "gaussian_decoder", dtype=dtype),
        grammar=arguments.grammar,
        temperature=arguments.temperature,
        min_p=arguments.min_p,
        max_points=arguments.max_points,
        align_points=arguments.align_points,
        complete_points=arguments.complete_points,
    )
    pipe.save_pretrained(arguments.output)
    said = dict.fromkeys(TRAINED, (arguments.source, arguments.licence))
    pipe.register_to_config(licences=describe_parts(arguments.output, said))
    pipe.save_config(arguments.output)
    print(f"{arguments.output} is ready for AvatarPipeline.from_pretrained.")


if __name__ == "__main__":
    main()
