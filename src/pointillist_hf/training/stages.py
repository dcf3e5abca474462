# SPDX-License-Identifier: Apache-2.0
"""The stages of training, from a data set and a folder of components to one more component.

A folder of components is laid out as `AvatarPipeline.save_pretrained` lays it out, so that what
the stages leave behind can be joined into a pipeline.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import PreTrainedModel, set_seed

from ..data.tokens.dataset import find_token_dataset, load_identities
from ..data.tokens.people_splits import check_leakage, find_person
from ..exporters.folder_owner import own_folder
from ..exporters.json_file import write_json_object
from ..exporters.path_names import check_path_name
from ..exporters.tensor_file import file_errors
from ..models.modeling_conditioner import AvatarConditioner
from ..models.modeling_gaussian_decoder import GaussianDecoder
from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.modeling_rig_regressor import RigRegressor
from ..pipeline_avatar import AvatarPipeline
from ..portraits.image_processing_portrait import PortraitImageProcessor
from ..portraits.portrait_tracker import PortraitTracker
from .checkpoints import find_checkpoints
from .dataset import People, check_views, load_people, with_token_order
from .encoders import Encoders, build_conditioner
from .frozen_features import FrozenFeatures, FrozenNetworks
from .generated_clouds import GeneratedLessons
from .generator_checks import generator_checks
from .lessons import Lessons, TrackedLessons
from .loop_config import LoopConfig
from .output_checks import check_tokenizer, choose_processor
from .perceptual import open_perceptual
from .recipes import (
    SIZES,
    build_decoder_config,
    build_generator_config,
    build_projected_decoder_config,
    build_regressor_config,
    token_order_of,
)
from .stage_settings import describe_run, format_run
from .starting_weights import choose_start, find_wider, take_over_weights
from .train_decoder import train_decoder
from .train_generator import embed_geometry, train_generator
from .train_projected_decoder import train_projected_decoder
from .train_regressor import train_regressor

OTHER_WAYS = {"regressor": "; or give an --image_encoder, such as facebook/dinov2-large"}
# Trained models by the names of their folders.
Components = dict[str, PreTrainedModel]


@dataclass(frozen=True)
class Splits:
    """Who is trained on, and who is not; the latter are read only if they are looked at."""

    train: People
    test: People | None = None


RunStage = Callable[[Splits, PortraitImageProcessor, Path, str, LoopConfig], Components]


def run_stage(
    stage: str,
    data: str | Path,
    output: str | Path,
    size: str,
    loop: LoopConfig,
    encoders: Encoders | None = None,
    start_from: str | Path | None = None,
) -> None:
    """Trains a stage and saves its components.

    Args:
        stage: One of `STAGES`.
        data: Folder of a tokenised data set, or its id on the Hub.
        output: Folder of components, read and written.
        size: One of `recipes.SIZES`; the sizes of one run share all but the generator.
        loop: How long, how fast.
        encoders: Pretrained ones that the generator's conditioner takes over; an image encoder
            takes the place of the stage "regressor".
        start_from: Folder of components whose weights regressor and generator begin with, such as
            a pipeline's.

    Raises:
        FileNotFoundError: A component of an earlier stage, or to start from, is missing.
        BlockingIOError: Another process runs the stage there.
        ValueError: There is no such stage or size, `output` belongs to another data set or size,
            or the data set's splits share people.
    """
    if stage not in STAGES:
        raise ValueError(f"`stage` must be one of {', '.join(STAGES)}, got {stage!r}.")
    check_path_name("output", output)
    if size not in SIZES:
        raise ValueError(f"`size` must be one of {', '.join(SIZES)}, got {size!r}.")
    encoders = encoders or Encoders()
    if stage != "generator" and encoders != Encoders():
        raise ValueError(
            f"`encoders` must be given to the stage generator alone, got them for {stage}: the "
            "stages after it find what it saved."
        )
    if start_from is not None and stage not in STARTED:
        raise ValueError(
            f"`start_from` must be given to {' and '.join(STARTED)} alone, got it for {stage}."
        )
    # Asked of the launcher: accelerate's state would be fixed before the loop says on which device.
    if os.environ.get("RANK", "0") == "0":
        with own_folder(loop.output_dir):
            _run_stage(stage, data, Path(output), size, loop, encoders, start_from)
    else:
        _run_stage(stage, data, Path(output), size, loop, encoders, start_from)


def _run_stage(
    stage: str,
    data: str | Path,
    output: Path,
    size: str,
    loop: LoopConfig,
    encoders: Encoders,
    start_from: str | Path | None,
) -> None:
    _check_leakage(data)
    people = _load_people(data, "train", size, loop)
    if stage.endswith("decoder"):
        check_views(people)
    check_tokenizer(people.tokenizer, output / "tokenizer", "output")
    if start_from is not None and stage == "generator":
        check_tokenizer(people.tokenizer, Path(start_from) / "tokenizer", "start_from")
    processor = choose_processor(stage, output, size, encoders)
    set_seed(loop.seed)
    is_checked = stage == "generator" and (loop.eval_steps or loop.sample_steps)
    test = _load_people(data, "test", size, loop) if is_checked else None
    run = STAGES[stage]
    if encoders != Encoders():
        run = partial(run, encoders=encoders)  # ty: ignore[unknown-argument]
    began = choose_start(start_from, Path(loop.output_dir)) if stage in STARTED else None
    if began is not None and not find_checkpoints(Path(loop.output_dir)):
        run = partial(run, start=Path(began))  # ty: ignore[unknown-argument]
    description = _describe(stage, data, people, size, loop, encoders)
    description["start_from"] = began
    if os.environ.get("RANK", "0") == "0" and loop.show_progress:
        tqdm.write(format_run(description))
    components = run(Splits(people, test), processor, output, size, loop)
    if not PartialState().is_main_process:
        return
    with file_errors(output):
        people.tokenizer.save_pretrained(output / "tokenizer")
        people.rig.save_pretrained(output / "rig")
        processor.save_pretrained(output / "image_processor")
        for name, model in components.items():
            model.save_pretrained(output / name)
    write_json_object(description, output / f"recipe-{stage}.json")


def _describe(
    stage: str,
    data: str | Path,
    people: People,
    size: str,
    loop: LoopConfig,
    encoders: Encoders,
) -> dict[str, object]:
    """The run as it is printed before it starts, and written beside its result."""
    tokenizer = people.tokenizer
    facts = {
        "data": str(data),
        "people": len(people),
        "points": sum(people.point_counts),
        "tokenizer": {
            name: getattr(tokenizer, name)
            for name in ("num_bins", "num_faces", "token_order", "cube_center", "cube_half_extent")
        },
        "rig": type(people.rig).__name__,
        "encoders": asdict(encoders) if stage == "generator" else None,
    }
    return describe_run(stage, size, loop, **facts)


def _load_people(data: str | Path, split: str, size: str, loop: LoopConfig) -> People:
    """A split, its tokens in the order that the size wants."""
    people = load_people(data, split, show_progress=loop.show_progress)
    return with_token_order(people, token_order_of(size, people.tokenizer))


def _check_leakage(data: str | Path) -> None:
    """Refuses a data set whose test split shows people that are trained on, by whatever name."""
    folder = find_token_dataset(data)
    trained, tested = (load_identities(folder, split) for split in ("train", "test"))
    check_leakage(*([find_person(name) for name in names] for names in (trained, tested)))


def _run_regressor(
    splits: Splits,
    processor: PortraitImageProcessor,
    output: Path,
    size: str,
    loop: LoopConfig,
    start: Path | None = None,
) -> Components:
    regressor = RigRegressor(build_regressor_config(size, splits.train.rig))
    if start is not None:
        take_over_weights(regressor, start / "rig_regressor")
    return {"rig_regressor": train_regressor(regressor, splits.train, processor, loop)}


def _run_generator(
    splits: Splits,
    processor: PortraitImageProcessor,
    output: Path,
    size: str,
    loop: LoopConfig,
    encoders: Encoders = Encoders(),  # noqa: B008  frozen
    start: Path | None = None,
) -> Components:
    people = splits.train
    conditioner = build_conditioner(size, people.tokenizer, encoders, processor.size)
    config = build_generator_config(size, people.tokenizer)
    config.max_points_per_face = people.most_per_face
    generator = PointGeneratorForCausalLM(config)
    embed_geometry(generator, people.tokenizer, people.rig)
    if start is not None:
        given = {"image_encoder": encoders.image, "point_cloud_encoder": encoders.point_cloud}
        own = [part for part, source in given.items() if source is not None]
        new = ("layout_reader", "layout_proj")
        take_over_weights(conditioner, start / "conditioner", new=new, own=own)
        wider = find_wider(start / "point_generator", config)
        take_over_weights(generator, start / "point_generator", wider=wider)
    if encoders.image is None:
        _take_over_encoder(conditioner, output, size)
    checks = generator_checks(splits.test, people, processor, loop)
    trained = train_generator(conditioner, generator, people, processor, loop, checks)
    return dict(zip(("conditioner", "point_generator"), trained, strict=True))


def _take_over_encoder(conditioner: AvatarConditioner, output: Path, size: str) -> None:
    """Gives the conditioner the image encoder that was trained as part of the regressor."""
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


def _run_decoder(
    splits: Splits, processor: PortraitImageProcessor, output: Path, size: str, loop: LoopConfig
) -> Components:
    people = splits.train
    conditioner = _load(AvatarConditioner, output / "conditioner", needed_stage="generator")
    perceptual = open_perceptual(loop, conditioner.image_encoder)
    generator = _load(
        PointGeneratorForCausalLM, output / "point_generator", needed_stage="generator"
    )
    config = build_decoder_config(size, people.tokenizer, generator.config)
    features = FrozenFeatures(Path(loop.output_dir) / "features", people)
    networks = FrozenNetworks(
        conditioner,
        generator,
        processor,
        use_bfloat16=loop.precision == "bf16",
        keep_context=config.cross_attention_size is not None,
    )
    features.prepare(networks, show_progress=loop.show_progress)
    del networks, generator  # the device has better use for its memory
    decoder = GaussianDecoder(config)
    trained = train_decoder(decoder, features, people, loop, perceptual=perceptual)
    return {"gaussian_decoder": trained}


def _run_projected_decoder(
    splits: Splits, processor: PortraitImageProcessor, output: Path, size: str, loop: LoopConfig
) -> Components:
    people = splits.train
    decoder = GaussianDecoder(build_projected_decoder_config(people.tokenizer))
    trained = train_projected_decoder(decoder, people, loop, perceptual=open_perceptual(loop))
    return {"gaussian_decoder": trained}


def _run_tracked_decoder(
    splits: Splits, processor: PortraitImageProcessor, output: Path, size: str, loop: LoopConfig
) -> Components:
    decoder = _load_projected(output)
    folder = output / "portrait_tracker"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"This stage needs {folder}, and it does not exist. Copy the portrait_tracker of a "
            "pipeline there, for instance of model_cards/pointillist-tiny."
        )
    lessons = TrackedLessons(splits.train, PortraitTracker.from_pretrained(folder))
    return _go_on(decoder, splits.train, loop, lessons)


def _run_generated_decoder(
    splits: Splits, processor: PortraitImageProcessor, output: Path, size: str, loop: LoopConfig
) -> Components:
    decoder = _load_projected(output)
    if not (output / "model_index.json").is_file():
        raise FileNotFoundError(
            f"This stage needs a whole pipeline in `output`, and {output} has no model_index.json. "
            "Copy there what examples/assemble.py made."
        )
    pipe = AvatarPipeline.from_pretrained(output)
    lessons = GeneratedLessons(splits.train, pipe, Path(loop.output_dir) / "clouds")
    return _go_on(decoder, splits.train, loop, lessons)


def _load_projected(output: Path) -> GaussianDecoder:
    decoder = _load(GaussianDecoder, output / "gaussian_decoder", needed_stage="projected-decoder")
    if decoder.config.image_inputs != "projected":
        raise ValueError(
            f"`output` must hold a gaussian_decoder with image_inputs 'projected', got "
            f"{decoder.config.image_inputs!r}: train the projected-decoder first."
        )
    return decoder.requires_grad_(True).float()


def _go_on(
    decoder: GaussianDecoder, people: People, loop: LoopConfig, lessons: Lessons
) -> Components:
    perceptual = open_perceptual(loop)
    trained = train_projected_decoder(decoder, people, loop, perceptual=perceptual, lessons=lessons)
    return {"gaussian_decoder": trained}


def _load(model: type[PreTrainedModel], folder: Path, *, needed_stage: str) -> PreTrainedModel:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"This stage needs {folder}, and it does not exist. Train the {needed_stage} first: "
            f"--stage {needed_stage} with the same --output{OTHER_WAYS.get(needed_stage, '')}."
        )
    return model.from_pretrained(folder).requires_grad_(False)


STARTED = ("regressor", "generator")  # from the weights of others, if that is wanted
STAGES: dict[str, RunStage] = {
    "regressor": _run_regressor,
    "generator": _run_generator,
    "decoder": _run_decoder,
    # In place of the decoder above, and without the other stages.
    "projected-decoder": _run_projected_decoder,
    # After it: the same decoder on portraits as the tracker finds them.
    "tracked-decoder": _run_tracked_decoder,
    # After it: the same decoder on what the generator of a whole pipeline draws.
    "generated-decoder": _run_generated_decoder,
}
