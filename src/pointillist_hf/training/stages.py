# SPDX-License-Identifier: Apache-2.0
"""The stages of training, from a data set and a folder of components to one more component.

A folder of components is laid out as `AvatarPipeline.save_pretrained` lays it out, so that what
the stages leave behind can be joined into a pipeline.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedModel, set_seed

from ..exporters.folder_owner import own_folder
from ..exporters.path_names import check_path_name
from ..exporters.tensor_file import file_errors
from ..models.modeling_conditioner import AvatarConditioner
from ..models.modeling_gaussian_decoder import GaussianDecoder
from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.modeling_rig_regressor import RigRegressor
from ..models.tokenization_points import PointTokenizer
from ..portraits.image_processing_portrait import PortraitImageProcessor
from .dataset import People, check_views, load_people, with_token_order
from .generator_checks import generator_checks
from .loop import LoopConfig
from .recipes import (
    SIZES,
    build_conditioner_config,
    build_decoder_config,
    build_generator_config,
    build_image_processor,
    build_projected_decoder_config,
    build_regressor_config,
    token_order_of,
)
from .train_decoder import FrozenFeatures, train_decoder
from .train_generator import embed_geometry, train_generator
from .train_projected_decoder import train_projected_decoder
from .train_regressor import train_regressor

# Trained models by the names of their folders.
Components = dict[str, PreTrainedModel]


@dataclass(frozen=True)
class Splits:
    """Who is trained on, and who is not; the latter are read only if they are looked at."""

    train: People
    test: People | None = None


@dataclass(frozen=True)
class Stage:
    """How a stage runs, and the loop settings it runs with unless told otherwise."""

    run: Callable[[Splits, PortraitImageProcessor, Path, str, LoopConfig], Components]
    settings: dict[str, float | int] = field(default_factory=dict)


def run_stage(
    stage: str, data: str | Path, output: str | Path, size: str, loop: LoopConfig
) -> None:
    """Trains a stage and saves its components.

    Args:
        stage: One of `STAGES`.
        data: Folder of a tokenised data set.
        output: Folder of components, read and written.
        size: One of `recipes.SIZES`; the sizes of one run share all but the generator.
        loop: How long, how fast.

    Raises:
        FileNotFoundError: A component of an earlier stage is missing.
        BlockingIOError: Another process runs the stage there.
        ValueError: There is no such stage or size, or `output` belongs to another data set or size.
    """
    if stage not in STAGES:
        raise ValueError(f"`stage` must be one of {', '.join(STAGES)}, got {stage!r}.")
    check_path_name("output", output)
    if size not in SIZES:
        raise ValueError(f"`size` must be one of {', '.join(SIZES)}, got {size!r}.")
    # Asked of the launcher: accelerate's state would be fixed before the loop says on which device.
    if os.environ.get("RANK", "0") == "0":
        with own_folder(loop.output_dir):
            _run_stage(stage, data, Path(output), size, loop)
    else:
        _run_stage(stage, data, Path(output), size, loop)


def _run_stage(stage: str, data: str | Path, output: Path, size: str, loop: LoopConfig) -> None:
    people = _load_people(data, "train", size, loop)
    if stage != "generator":
        check_views(people)
    _check_tokenizer(people.tokenizer, output / "tokenizer")
    processor = build_image_processor(size)
    set_seed(loop.seed)
    is_checked = stage == "generator" and (loop.eval_steps or loop.sample_steps)
    test = _load_people(data, "test", size, loop) if is_checked else None
    components = STAGES[stage].run(Splits(people, test), processor, output, size, loop)
    if not PartialState().is_main_process:
        return
    with file_errors(output):
        people.tokenizer.save_pretrained(output / "tokenizer")
        people.rig.save_pretrained(output / "rig")
        processor.save_pretrained(output / "image_processor")
        for name, model in components.items():
            model.save_pretrained(output / name)


def _load_people(data: str | Path, split: str, size: str, loop: LoopConfig) -> People:
    """A split, its tokens in the order that the size wants."""
    people = load_people(data, split, show_progress=loop.show_progress)
    return with_token_order(people, token_order_of(size, people.tokenizer))


def _check_tokenizer(tokenizer: PointTokenizer, folder: Path) -> None:
    if not folder.is_dir():
        return
    saved = PointTokenizer.from_pretrained(folder)
    for name in ("num_bins", "num_faces", "token_order", "cube_center", "cube_half_extent"):
        ours, theirs = getattr(tokenizer, name), getattr(saved, name)
        if ours != theirs:
            raise ValueError(
                f"`output` holds components of another data set: its tokenizer has {name} "
                f"{theirs}, this data set's {ours}. Use another folder."
            )


def _run_regressor(
    splits: Splits, processor: PortraitImageProcessor, output: Path, size: str, loop: LoopConfig
) -> Components:
    regressor = RigRegressor(build_regressor_config(size, splits.train.rig))
    return {"rig_regressor": train_regressor(regressor, splits.train, processor, loop)}


def _run_generator(
    splits: Splits, processor: PortraitImageProcessor, output: Path, size: str, loop: LoopConfig
) -> Components:
    people = splits.train
    conditioner = AvatarConditioner(build_conditioner_config(size, people.tokenizer))
    regressor = _load(RigRegressor, output / "rig_regressor", needed_stage="regressor")
    for name in ("image_size", "hidden_size", "num_hidden_layers"):
        wanted = getattr(conditioner.config.image_config, name)
        got = getattr(regressor.config.image_config, name)
        if wanted != got:
            raise ValueError(
                f"`size` must be that of the regressor in `output`: its image encoder has {name} "
                f"{got}, size {size!r} wants {wanted}."
            )
    conditioner.image_encoder.load_state_dict(regressor.image_encoder.state_dict())
    # As the paper keeps DINOv2: points would teach the encoder to forget colours.
    conditioner.image_encoder.requires_grad_(False)
    generator = PointGeneratorForCausalLM(build_generator_config(size, people.tokenizer))
    embed_geometry(generator, people.tokenizer, people.rig)
    checks = generator_checks(splits.test, people, processor, loop)
    trained = train_generator(conditioner, generator, people, processor, loop, checks)
    return dict(zip(("conditioner", "point_generator"), trained, strict=True))


def _run_decoder(
    splits: Splits, processor: PortraitImageProcessor, output: Path, size: str, loop: LoopConfig
) -> Components:
    people = splits.train
    conditioner = _load(AvatarConditioner, output / "conditioner", needed_stage="generator")
    generator = _load(
        PointGeneratorForCausalLM, output / "point_generator", needed_stage="generator"
    )
    features = FrozenFeatures(
        conditioner, generator, people, processor, use_bfloat16=loop.mixed_precision == "bf16"
    )
    config = build_decoder_config(size, people.tokenizer, generator.config)
    decoder = GaussianDecoder(config)
    return {"gaussian_decoder": train_decoder(decoder, features, people, loop)}


def _run_projected_decoder(
    splits: Splits, processor: PortraitImageProcessor, output: Path, size: str, loop: LoopConfig
) -> Components:
    people = splits.train
    decoder = GaussianDecoder(build_projected_decoder_config(people.tokenizer))
    return {"gaussian_decoder": train_projected_decoder(decoder, people, loop)}


def _load(model: type[PreTrainedModel], folder: Path, *, needed_stage: str) -> PreTrainedModel:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"This stage needs {folder}, and it does not exist. Train the {needed_stage} first: "
            f"--stage {needed_stage} with the same --output."
        )
    return model.from_pretrained(folder).requires_grad_(False)


# The embedded checkpoint's; its card says what came of them.
STAGES = {
    "regressor": Stage(
        _run_regressor, {"max_steps": 2400, "batch_size": 32, "learning_rate": 6e-4}
    ),
    "generator": Stage(
        _run_generator, {"max_steps": 3000, "batch_size": 16, "learning_rate": 1e-3}
    ),
    "decoder": Stage(_run_decoder, {"max_steps": 1450, "batch_size": 8, "learning_rate": 1e-3}),
    # In place of the decoder above, and without the other stages.
    "projected-decoder": Stage(
        _run_projected_decoder,
        {"max_steps": 4000, "batch_size": 1, "learning_rate": 1.5e-3},
    ),
}
