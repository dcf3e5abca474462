# SPDX-License-Identifier: Apache-2.0
"""Decoders that know different things of their points, trained alike: the rows of Table 2.

    <output>/variants.json                               titles, in the order of the table
    <output>/<variant>/seed_<number>/gaussian_decoder/   as `save_pretrained` writes it
    <output>/<variant>/seed_<number>/pipeline.json       settings that the variant wants
    <output>_runs/                                       checkpoints, logs and frozen features

All of them see the same people, as many pictures, and take as many steps. This is the layout that
`pointillist-hf evaluate --variants` reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn
from transformers import set_seed

from ..exporters.folder_owner import own_folder
from ..exporters.json_file import write_json_object
from ..exporters.path_names import check_path_name
from ..exporters.tensor_file import file_errors
from ..models.modeling_conditioner import AvatarConditioner
from ..models.modeling_gaussian_decoder import GaussianDecoder
from ..models.modeling_point_generator import PointGeneratorForCausalLM
from ..models.tokenization_points import PointTokenizer
from ..portraits.image_processing_portrait import PortraitImageProcessor
from .dataset import People, check_views, load_people, with_token_order
from .frozen_features import FrozenFeatures, FrozenNetworks
from .lessons import Lessons
from .loop_config import LoopConfig
from .perceptual import open_perceptual
from .recipes import build_decoder_config, build_projected_decoder_config
from .train_decoder import train_decoder
from .train_projected_decoder import train_projected_decoder

TITLES_FILE, SETTINGS_FILE, PART = "variants.json", "pipeline.json", "gaussian_decoder"
PARTS = {
    "conditioner": AvatarConditioner,
    "point_generator": PointGeneratorForCausalLM,
    "image_processor": PortraitImageProcessor,
}


@dataclass(frozen=True)
class DecoderVariant:
    """A row of the table."""

    title: str
    inputs: str  # of `GaussianDecoderConfig`
    is_projected: bool = False  # whether it looks at the photograph
    settings: Mapping[str, object] = field(default_factory=dict)  # of the pipeline


# The photograph would give hair and colours to those that are to do without it.
_PLAIN = {"complete_points": False}
VARIANTS = {
    "template": DecoderVariant("Template", "template", settings=_PLAIN),
    "features": DecoderVariant("AR Feature", "features", settings=_PLAIN),
    "positions": DecoderVariant("AR Position", "positions", settings=_PLAIN),
    "both": DecoderVariant("AR Feature and Position", "both", settings=_PLAIN),
    "projected": DecoderVariant("Position and photograph", "positions", is_projected=True),
}


@dataclass(frozen=True)
class FrozenParts:
    """The trained components that all variants share."""

    conditioner: AvatarConditioner
    generator: PointGeneratorForCausalLM
    processor: PortraitImageProcessor


def train_decoder_variants(
    data: str | Path,
    components: str | Path,
    output: str | Path,
    loop: LoopConfig,
    *,
    size: str = "tiny",
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: Sequence[int] = (0, 1, 2),
    views_per_step: int = 3,
    on_trained: Callable[[str, int], None] | None = None,
) -> None:
    """Trains each variant with each seed, or what is left of it after an interruption.

    Args:
        data: Folder of a tokenised data set with the bins of the generator, or its id on the Hub;
            for "projected", all pictures of a person in one light.
        components: Folder of a trained pipeline or run: its generator and conditioner stay as they
            are.
        output: Folder of the variants.
        loop: Of each training; `output_dir` and `seed` are set here.
        size: Of the decoders, of `recipes.SIZES`; "projected" has its own, that of "tiny-points".
        variants: Of `VARIANTS`.
        seeds: Of the weights and of the order of people.
        views_per_step: Pictures of a person that a step looks at, for all variants.
        on_trained: Gets a variant and a seed that is done.

    Raises:
        FileNotFoundError: A component is missing.
        ValueError: There is no such variant, or data and components do not fit.
    """
    check_path_name("output", output)
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise ValueError(f"`variants` must be of {', '.join(VARIANTS)}, got {unknown[0]!r}.")
    parts = open_parts(components)
    people = load_people(data, "train", show_progress=loop.show_progress)
    check_views(people)
    _check_data(people.tokenizer, parts)
    people = with_token_order(people, parts.generator.config.token_order)
    lessons = Lessons(people)  # that all seeds share: to prepare one takes longer than a step
    output, runs = Path(output), Path(f"{output}_runs")
    # Asked of the launcher, as in `stages`.
    is_first = os.environ.get("RANK", "0") == "0"
    with own_folder(runs) if is_first else nullcontext():
        for seed in seeds:  # first, so that what is there at any time has been trained as often
            for name in variants:
                own = replace(loop, output_dir=str(runs / f"{name}_{seed}"), seed=seed)
                variant = VARIANTS[name]
                if variant.is_projected:
                    decoder = _train_projected(lessons, parts, own, views_per_step)
                else:
                    decoder = _train(variant, people, parts, size, own, runs, views_per_step)
                if PartialState().is_main_process:
                    _save(decoder, name, output, seed)
                if on_trained is not None:
                    on_trained(name, seed)


def open_parts(components: str | Path) -> FrozenParts:
    """What the stages before the decoder left in a folder, in float32.

    Raises:
        FileNotFoundError: It is not there.
    """
    folder, found = Path(components), []
    for name, part in PARTS.items():
        if not (folder / name).is_dir():
            raise FileNotFoundError(
                f"`components` must hold what the generator's stage left, and {folder} lacks "
                f"{name}. Name a trained pipeline, or the --output of the stages."
            )
        is_network = issubclass(part, nn.Module)
        options = {"dtype": torch.float32} if is_network else {}
        loaded = part.from_pretrained(folder / name, **options)
        found.append(loaded.requires_grad_(False) if is_network else loaded)
    return FrozenParts(*found)


def _check_data(tokenizer: PointTokenizer, parts: FrozenParts) -> None:
    sides = (("num_bins", parts.generator), ("num_faces", parts.generator))
    sides += (("cube_center", parts.conditioner), ("cube_half_extent", parts.conditioner))
    for name, part in sides:
        ours, theirs = getattr(tokenizer, name), getattr(part.config, name)
        ours = list(ours) if isinstance(theirs, list) else ours
        if ours != theirs:
            raise ValueError(
                f"`data` must fit `components`: its tokenizer has {name} {ours}, and the generator "
                f"was trained with {theirs}. Make a data set with the generator's."
            )


def _train_projected(
    lessons: Lessons, parts: FrozenParts, loop: LoopConfig, views: int
) -> GaussianDecoder:
    set_seed(loop.seed)
    people = lessons.people
    return train_projected_decoder(
        GaussianDecoder(build_projected_decoder_config(people.tokenizer)),
        people,
        loop,
        views_per_lesson=views,
        portraits_per_person=1,  # as many as `FrozenFeatures` has of them
        perceptual=open_perceptual(loop, parts.conditioner.image_encoder),
        lessons=lessons,
    )


def _train(
    variant: DecoderVariant,
    people: People,
    parts: FrozenParts,
    size: str,
    loop: LoopConfig,
    runs: Path,
    views: int,
) -> GaussianDecoder:
    perceptual = open_perceptual(loop, parts.conditioner.image_encoder)
    features = FrozenFeatures(runs / "features", people)
    sizes = (size, people.tokenizer, parts.generator.config)
    config = build_decoder_config(*sizes, inputs=variant.inputs)
    networks = FrozenNetworks(
        parts.conditioner,
        parts.generator,
        parts.processor,
        use_bfloat16=loop.precision == "bf16",
        keep_context=config.cross_attention_size is not None,
    )
    features.prepare(networks, show_progress=loop.show_progress)
    set_seed(loop.seed)
    options = {"views_per_person": views, "perceptual": perceptual}
    return train_decoder(GaussianDecoder(config), features, people, loop, **options)


def _save(decoder: GaussianDecoder, name: str, output: Path, seed: int) -> None:
    """Writes the decoder, and the titles of all variants that are there."""
    folder = output / name / f"seed_{seed}"
    with file_errors(folder):
        decoder.save_pretrained(folder / PART)
    if VARIANTS[name].settings:
        write_json_object(VARIANTS[name].settings, folder / SETTINGS_FILE)
    titles = {
        other: variant.title for other, variant in VARIANTS.items() if (output / other).is_dir()
    }
    write_json_object(titles, output / TITLES_FILE)
