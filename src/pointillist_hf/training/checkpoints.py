# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: written in one move, and looked at before they are gone on from."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from torch import nn

from .ema import AVERAGE_FILE, WeightAverage

logger = logging.getLogger(__name__)

KEPT = 2
NAME = re.compile(r"step-(\d{7,})")


def check_figure(what: str, value: float, step: int) -> None:
    """Refuses to go on from a figure that is not finite.

    Raises:
        FloatingPointError: It is not.
    """
    if not math.isfinite(value):
        raise FloatingPointError(
            f"The {what} is {value} at step {step}. Lower `learning_rate`, or restart from an "
            "earlier checkpoint."
        )


def check_weights(model: nn.Module, average: WeightAverage | None, step: int) -> None:
    """Refuses weights that may not be saved.

    Raises:
        FloatingPointError: One is NaN or infinite.
    """
    named = list(model.named_parameters()) + (list(average.average.items()) if average else [])
    for name, weight in named:
        if not torch.isfinite(weight.detach()).all():
            raise FloatingPointError(
                f"The weights `{name}` are not finite after step {step}, and are not saved. Lower "
                "`learning_rate`; the run goes on from its last checkpoint."
            )


def save_checkpoint(
    accelerator: Accelerator, output_dir: Path, step: int, average: WeightAverage | None = None
) -> None:
    """Writes a checkpoint in one move, and removes all but the last two."""
    folder = output_dir / "checkpoints"
    partial_folder = folder / f"partial-{step:07d}"
    try:
        accelerator.save_state(str(partial_folder))
        accelerator.wait_for_everyone()
        if average is not None:
            average.save(partial_folder, is_main=accelerator.is_main_process)
    except SafetensorError as error:
        raise OSError(f"{partial_folder} cannot be written: {error}. Is the disk full?") from error
    if accelerator.is_main_process:
        target = folder / f"step-{step:07d}"
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial_folder, target)
        for _, old in find_checkpoints(output_dir)[KEPT:]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def restore_latest(
    accelerator: Accelerator, output_dir: Path, average: WeightAverage | None = None
) -> int:
    """Loads the newest checkpoint that is whole. Returns the number of steps it has seen.

    Raises:
        FileNotFoundError: The checkpoint was written without an average.
        ValueError: There are checkpoints, and none is whole.
    """
    found = find_checkpoints(output_dir)
    for step, folder in found:
        problem = find_damage(folder)
        if problem is None:
            try:
                accelerator.load_state(str(folder))
            except Exception as error:  # optimizer and random state are read by foreign code
                problem = " ".join(str(error).split())[:200] or type(error).__name__
            else:
                if average is not None:
                    average.load(folder)
                logger.info("Going on from %s.", folder)
                return step
        logger.warning("%s is passed over, it is damaged: %s", folder, problem)
    if found:
        raise ValueError(
            f"`output_dir` must hold a whole checkpoint, and all in {output_dir / 'checkpoints'} "
            "are damaged. Remove them to start anew."
        )
    return 0


def find_checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """Steps and folders, the newest first; what else lies beside them is not looked at."""
    found = [
        (int(match[1]), path)
        for path in (output_dir / "checkpoints").glob("step-*")
        if (match := NAME.fullmatch(path.name)) and path.is_dir()
    ]
    return sorted(found, reverse=True)


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint as far as its files say; None if nothing is."""
    weights = [path for path in sorted(folder.glob("*.safetensors")) if path.is_file()]
    if not [path for path in weights if path.name != AVERAGE_FILE] and not list(
        folder.glob("pytorch_model*")
    ):
        return "it holds no weights"
    for path in weights:
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    tensor = file.get_tensor(name)
                    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                        return f"`{name}` in {path.name} is not finite"
        except (SafetensorError, OSError) as error:
            return f"{path.name}: {error}"
    return None
