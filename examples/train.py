# SPDX-License-Identifier: Apache-2.0
"""Trains one stage: accelerate launch examples/train.py --stage generator --data DIR --output DIR.

The stages in order: regressor, generator, decoder. Each finds the components it needs in
OUTPUT and saves its own there. Run the same command again to go on from the last checkpoint.
--size tiny-depth gives the generator the depth head, --size tiny-anchored also reads the tracked
head. --eval_steps and --sample_steps are for the generator: held-out nats per point, and pictures
of points in OUTPUT/generator_run/samples.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from transformers import HfArgumentParser

from pointillist_hf.cli_errors import one_line_errors
from pointillist_hf.training.loop import LoopConfig
from pointillist_hf.training.stages import STAGES, run_stage


@dataclass
class Arguments:
    """What to train, on what, for how long. A value of -1 keeps the stage's default."""

    stage: str
    data: str
    output: str
    size: str = "tiny"
    max_steps: int = -1
    batch_size: int = -1
    learning_rate: float = -1.0
    mixed_precision: str = "no"
    accumulation_steps: int = 1
    schedule: str = "cosine"
    ema_decay: float = 0.0
    save_steps: int = -1
    eval_steps: int = 0
    sample_steps: int = 0
    num_eval_people: int = 16
    num_sample_points: int = 1024
    window_step: int = 0
    tracker: str = "none"
    num_workers: int = 0
    seed: int = 0


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    with one_line_errors():
        train(arguments)


def train(arguments: Arguments) -> None:
    if arguments.stage not in STAGES:
        raise ValueError(f"`stage` must be one of {', '.join(STAGES)}, got {arguments.stage!r}.")
    same = {f.name: getattr(arguments, f.name, None) for f in fields(LoopConfig)}
    given = {name: value for name, value in same.items() if value not in (None, -1)}
    config = LoopConfig(
        output_dir=f"{arguments.output}/{arguments.stage}_run",
        **{**STAGES[arguments.stage].settings, **given},
    )
    run_stage(arguments.stage, arguments.data, arguments.output, arguments.size, config)


if __name__ == "__main__":
    main()
