# SPDX-License-Identifier: Apache-2.0
"""Components out of a generator's run that has not ended, from its newest whole checkpoint.

Of the run's folder nothing but that checkpoint is read, so it may go on meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model

from ..models.modeling_point_generator import PointGeneratorForCausalLM
from .checkpoints import find_checkpoints, find_damage
from .dataset import load_people, with_token_order
from .ema import AVERAGE_FILE, WeightAverage
from .encoders import Encoders, build_conditioner
from .recipes import SIZES, build_generator_config, build_image_processor, token_order_of
from .train_generator import GeneratorTraining


def save_unfinished_generator(
    run: str | Path, data: str | Path, components: str | Path, *, size: str
) -> int:
    """Writes what the stage "generator" would write if it ended with its newest checkpoint.

    Args:
        run: The run's `output_dir`, such as runs/tiny/generator_run.
        data: The data set that it is trained on: its tokenizer, its rig, its points per face.
        components: Folder to write into.
        size: As the run has it, one of `recipes.SIZES`.

    Returns:
        The number of steps that the weights have seen.

    Raises:
        FileNotFoundError: There is no whole checkpoint.
        ValueError: The checkpoint is of another size, or the run has encoders from elsewhere.
    """
    if size not in SIZES:
        raise ValueError(f"`size` must be one of {', '.join(SIZES)}, got {size!r}.")
    step, checkpoint = _find_checkpoint(Path(run))
    stored, components = load_people(data, "train", on_disk=True), Path(components)
    people = with_token_order(stored, token_order_of(size, stored.tokenizer))
    tokenizer, processor = people.tokenizer, build_image_processor(size)
    config = build_generator_config(size, tokenizer)
    config.max_points_per_face = people.most_per_face
    training = GeneratorTraining(
        build_conditioner(size, tokenizer, Encoders(), processor.size),
        PointGeneratorForCausalLM(config),
    )
    _load(training, checkpoint, size)
    tokenizer.save_pretrained(components / "tokenizer")
    people.rig.save_pretrained(components / "rig")
    processor.save_pretrained(components / "image_processor")
    training.conditioner.save_pretrained(components / "conditioner")
    training.generator.save_pretrained(components / "point_generator")
    return step


def _find_checkpoint(run: Path) -> tuple[int, Path]:
    for step, folder in find_checkpoints(run):
        if find_damage(folder) is None:
            return step, folder
    raise FileNotFoundError(
        f"`run` must hold checkpoints, and {run} has no whole one in checkpoints/step-*. Wait for "
        "the run's first, or name the folder with its settings.json."
    )


def _load(training: GeneratorTraining, checkpoint: Path, size: str) -> None:
    """Gives the networks the weights of a checkpoint, averaged ones if there are any."""
    try:
        load_model(training, checkpoint / "model.safetensors")
    except (RuntimeError, SafetensorError, OSError) as error:
        raise ValueError(
            f"`size` must be that of the run: {checkpoint} does not fit {size!r} "
            f"({' '.join(str(error).split())[:200]})."
        ) from error
    if (checkpoint / AVERAGE_FILE).is_file():
        training.conditioner.image_encoder.requires_grad_(False)  # has no average
        average = WeightAverage(training, decay=0.0)
        average.load(checkpoint)
        average.store()
