# SPDX-License-Identifier: Apache-2.0
"""Joins trained components: python examples/assemble.py --components DIR --output DIR.

The result is a pipeline folder that AvatarPipeline.from_pretrained reads, in bfloat16 by default.
On FLAME, --landmarks names its landmark_embedding_with_eyes.npy, which the tracker needs;
--tracker none leaves the tracker out.

Of a generator that is still being trained, --unfinished names the run, whose newest checkpoint is
written into the components first; --size and --data are those of the run. --base names a pipeline
that gives the decoder and the regressor that the components lack.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import HfArgumentParser

from pointillist_hf.cli_errors import one_line_errors
from pointillist_hf.training.assembling import assemble_pipeline, save_assembly
from pointillist_hf.training.unfinished import save_unfinished_generator


@dataclass
class Arguments:
    """Folders, and the sampling that the pipeline starts with."""

    components: str
    output: str
    tracker: str = "model_cards/pointillist-tiny/portrait_tracker"
    flame: str | None = None
    landmarks: str | None = None
    base: str | None = None
    # the data set of the generator, and its run and size if it has not ended
    data: str | None = None
    unfinished: str | None = None
    size: str = "tiny"
    max_points: int = 1400
    grammar: str = "full"
    temperature: float = 0.85
    min_p: float = 0.05
    guidance_scale: float = 1.0
    num_candidates: int = 1
    align_points: bool = True
    complete_points: bool = True
    dtype: str = "bfloat16"
    # what is said of the trained parts when somebody publishes them; by default what the rig tells
    source: str | None = None
    licence: str | None = None


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    with one_line_errors():
        assemble(arguments)


def assemble(arguments: Arguments) -> None:
    has_tracker = arguments.tracker != "none"
    if arguments.unfinished is not None:
        if arguments.data is None:
            raise ValueError("`data` must be given with `unfinished`: its tokenizer and its rig.")
        step = save_unfinished_generator(
            arguments.unfinished, arguments.data, arguments.components, size=arguments.size
        )
        print(f"{arguments.components} has the generator of step {step}.")
    pipe = assemble_pipeline(
        arguments.components,
        tracker=arguments.tracker if has_tracker else None,
        flame=arguments.flame,
        landmarks=arguments.landmarks,
        base=arguments.base,
        data=arguments.data,
        dtype=getattr(torch, arguments.dtype),
        grammar=arguments.grammar,
        temperature=arguments.temperature,
        min_p=arguments.min_p,
        guidance_scale=arguments.guidance_scale,
        num_candidates=arguments.num_candidates,
        max_points=arguments.max_points,
        align_points=arguments.align_points,
        complete_points=arguments.complete_points and has_tracker,
    )
    save_assembly(pipe, arguments.output, source=arguments.source, licence=arguments.licence)
    print(f"{arguments.output} is ready for AvatarPipeline.from_pretrained.")


if __name__ == "__main__":
    main()
