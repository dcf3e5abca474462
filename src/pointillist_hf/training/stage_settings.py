# SPDX-License-Identifier: Apache-2.0
"""The settings that stages run with unless told otherwise, as named recipes, and who says what.

Strongest first: flags, the file that `--config` names, the recipe of the size, `LoopConfig`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from .loop_config import LoopConfig
from .losses import LossWeights
from .stage_times import estimate_minutes

Values = dict[str, object]


@dataclass(frozen=True)
class Recipe:
    """Settings of all stages that belong together."""

    name: str
    source: str  # where they come from
    settings: Mapping[str, Values]  # of `LoopConfig`, by stage
    # Rows that a device computes at once, by stage; what is more than that is accumulated.
    rows_at_once: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)  # that the source used


EMBEDDED = Recipe(
    name="embedded",
    source="the embedded checkpoint's, whose card says what came of them",
    settings={
        "regressor": {"max_steps": 2400, "batch_size": 32, "learning_rate": 6e-4},
        "generator": {"max_steps": 3000, "batch_size": 16, "learning_rate": 1e-3},
        "decoder": {"max_steps": 1450, "batch_size": 8, "learning_rate": 1e-3},
        "projected-decoder": {"max_steps": 4000, "batch_size": 1, "learning_rate": 1.5e-3},
        "tracked-decoder": {
            "max_steps": 2600,
            "batch_size": 1,
            "learning_rate": 7e-4,
            "ema_decay": 0.99,
        },
        "generated-decoder": {
            "max_steps": 3000,
            "batch_size": 1,
            "learning_rate": 4e-4,
            "ema_decay": 0.99,
        },
    },
)
# What the paper does not say is torch's default, and no schedule.
_PLAIN = {"learning_rate": 1e-4, "adam_beta2": 0.999, "schedule": "constant", "warmup_steps": 0}
PAPER = Recipe(
    name="paper",
    source="the paper's, Sec. 5.1 and Eq. 6, as far as it says",
    settings={
        # Not the paper's, which tracks the portrait and takes DINOv2 as it is.
        "regressor": {"max_steps": 20_000, "batch_size": 64, "learning_rate": 1e-4},
        "generator": {
            **_PLAIN,
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "max_steps": 50_000,
            "batch_size": 64,  # 4 on each of 16
            "window_step": 12_000,  # windows beside one another, the last one padded
            "gradient_checkpointing": True,
            "save_steps": 1000,
        },
        "decoder": {
            **_PLAIN,
            "optimizer": "adam",
            "weight_decay": 0.0,
            "max_steps": 12_500,
            "batch_size": 32,  # 4 on each of 8
            "perceptual": "lpips",
            "gradient_checkpointing": True,
        },
        "projected-decoder": {**EMBEDDED.settings["projected-decoder"], "perceptual": "lpips"},
        "tracked-decoder": {**EMBEDDED.settings["tracked-decoder"], "perceptual": "lpips"},
        "generated-decoder": {**EMBEDDED.settings["generated-decoder"], "perceptual": "lpips"},
    },
    rows_at_once={"regressor": 4, "generator": 4, "decoder": 4},
    devices={"generator": 16, "decoder": 8},
)


def find_recipe(size: str) -> Recipe:
    """The recipe that goes with a size of `recipes.SIZES`."""
    return PAPER if size.startswith("paper") else EMBEDDED


def build_loop(
    stage: str, size: str, output: str | Path, given: Mapping[str, object]
) -> LoopConfig:
    """The settings of a run: those that are given, and the recipe's.

    The rows of a step are computed in as many parts as the recipe wants, unless
    `accumulation_steps` is given: a step of 64 rows is the same on 16 devices as on 2.

    Args:
        stage: One of `stages.STAGES`.
        size: One of `recipes.SIZES`.
        output: Folder of components.
        given: Fields of `LoopConfig`; None is not given.

    Raises:
        ValueError: A value is out of range, or there is no such setting or stage.
    """
    recipe = find_recipe(size)
    if stage not in recipe.settings:
        raise ValueError(f"`stage` must be one of {', '.join(recipe.settings)}, got {stage!r}.")
    given = {name: value for name, value in given.items() if value is not None}
    known = {f.name for f in fields(LoopConfig)}
    if unknown := sorted({*given} - known):
        raise ValueError(
            f"`{unknown[0]}` is no setting of a run; it must be one of {', '.join(sorted(known))}."
        )
    values = {"output_dir": f"{output}/{stage}_run", **recipe.settings[stage], **given}
    config = LoopConfig(**values)
    rows = recipe.rows_at_once.get(stage)
    if rows is None or "accumulation_steps" in given:
        return config
    return replace(config, accumulation_steps=_count_parts(config.batch_size, rows))


def _count_parts(batch_size: int, rows_at_once: int) -> int:
    """Parts of a process's rows, of at most so many; 1 where they cannot be shared out."""
    own, rest = divmod(batch_size, int(os.environ.get("WORLD_SIZE", "1")))
    if rest or not own:
        return 1  # the loop will say so
    parts = range(-(-own // rows_at_once), own + 1)
    return next(count for count in parts if own % count == 0)


def describe_run(stage: str, size: str, config: LoopConfig, **facts: object) -> Values:
    """What is written beside the result: with it and the data, the run can be made again.

    Args:
        stage: Of training.
        size: Of the networks.
        config: All settings.
        **facts: What else there is to know, for instance of the data.
    """
    recipe = find_recipe(size)
    own = recipe.settings[stage]
    settings = {**asdict(config), "mixed_precision": config.precision}
    return {
        "recipe": recipe.name,
        "source": recipe.source,
        "stage": stage,
        "size": size,
        "estimated_minutes_on_two_cpu_cores": estimate_minutes(stage, size, config, own),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "processes_of_the_source": recipe.devices.get(stage),
        "changed": sorted(name for name, value in own.items() if settings[name] != value),
        "loss_weights": asdict(LossWeights()) if stage.endswith("decoder") else None,
        **facts,
        "settings": {name: value for name, value in settings.items() if name != "output_dir"},
    }


def format_run(description: Mapping[str, object]) -> str:
    """The same for readers, a line for each value."""
    lines = [f"Recipe {description['recipe']}: {description['source']}."]
    for name, value in description.items():
        if name in ("recipe", "source") or value is None:
            continue
        if isinstance(value, Mapping):
            lines += [f"  {name}:", *(f"    {key}: {item}" for key, item in value.items())]
        else:
            text = ", ".join(value) or "nothing" if isinstance(value, list) else value
            lines.append(f"  {name}: {text}")
    return "\n".join(lines)
