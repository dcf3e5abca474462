# SPDX-License-Identifier: Apache-2.0
"""Trains one stage: accelerate launch examples/train.py --stage generator --data DIR --output DIR.

The stages in order: regressor, generator, decoder. Each finds the components it needs in
OUTPUT and saves its own there. Run the same command again to go on from the last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import HfArgumentParser

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
    save_steps: int = -1
    num_workers: int = 0
    seed: int = 0


def main() -> None:
    arguments = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    given = {
        name: getattr(arguments, name)
        for name in ("max_steps", "batch_size", "learning_rate", "save_steps")
        if getattr(arguments, name) != -1
    }
    if arguments.stage not in STAGES:
        raise SystemExit(f"--stage must be one of {', '.join(STAGES)}, got {arguments.stage!r}.")
    config = LoopConfig(
        output_dir=f"{arguments.output}/{arguments.stage}_run",
        mixed_precision=arguments.mixed_precision,
        num_workers=arguments.num_workers,
        seed=arguments.seed,
        **{**STAGES[arguments.stage].settings, **given},
    )
    run_stage(arguments.stage, arguments.data, arguments.output, arguments.size, config)


if __name__ == "__main__":
    main()
