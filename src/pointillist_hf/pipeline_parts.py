# SPDX-License-Identifier: Apache-2.0
"""Floor 6. Whether the parts of a pipeline fit each other: their vocabularies, cubes and widths."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from diffusers import DiffusionPipeline

from .decoding.grammar import PointGrammar
from .decoding.guidance import MAX_GUIDANCE
from .decoding.sampling import SeededSampling
from .geometry.number_checks import check_integer, check_number
from .pipeline_candidates import MAX_CANDIDATES
from .refinement.point_sights import NUM_SIGHT_FEATURES
from .rigs.array_checks import check_rig_arrays

REQUIRED = (
    "image_processor", "rig", "conditioner", "tokenizer", "point_generator", "gaussian_decoder",
)  # fmt: skip
# What diffusers and json raise of a folder that is no whole pipeline, beside errors of files.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)
# Where the parts say how large their portraits are.
PORTRAIT_SIZES = {"conditioner": ("image_size",), "rig_regressor": ("image_config", "image_size")}
TOLERANCE = 1e-6  # of lengths in metres
MAX_VIEW_SIZE, MAX_REFINE_STEPS = 2**12, 10**6


def check_parts(pipe: DiffusionPipeline) -> None:
    """Refuses parts that were made for other ones.

    Raises:
        ValueError: With the names of both, what they have, and what to do.
    """
    for name in REQUIRED:
        if getattr(pipe, name, None) is None:
            raise ValueError(f"`{name}` must be given: a pipeline is nothing without it.")
    check_rig_arrays(pipe.rig)
    heights = getattr(getattr(pipe.point_generator, "config", None), "layout_heights", None)
    if heights is not None and not _foresees(pipe):
        raise ValueError(
            "`conditioner` must foresee layouts for a `point_generator` that is told them: it has "
            f"no `layout_size`, and that has `layout_heights` {heights}. Use parts that were "
            "trained together."
        )
    for (part, value), (other, wanted) in _pairs(pipe):
        if value is None or wanted is None:  # a part of the user's own that does not say
            continue
        if not _is_same(value, wanted):
            raise ValueError(
                f"`{part}` must fit `{other}`: it is {value!r}, and that is {wanted!r}. Use parts "
                "that were trained together."
            )


def check_settings(pipe: DiffusionPipeline) -> None:
    """Refuses defaults of the call that no call could have."""
    config = pipe.config
    PointGrammar(
        pipe.tokenizer.layout, level=config.grammar, min_points=0, max_points=config.max_points
    )
    SeededSampling([], temperature=config.temperature, min_p=config.min_p)
    check_number("guidance_scale", config.guidance_scale, 0, MAX_GUIDANCE)
    most = MAX_CANDIDATES if _foresees(pipe) else 1
    check_integer("num_candidates", config.num_candidates, 1, most)
    check_integer("refine_steps", config.refine_steps, 0, MAX_REFINE_STEPS)
    check_integer("view_size", config.view_size, 16, MAX_VIEW_SIZE)
    for name in ("align_points", "complete_points"):
        if not isinstance(config[name], bool):
            raise ValueError(f"`{name}` must be true or false, got {config[name]!r}.")


def _foresees(pipe: DiffusionPipeline) -> bool:
    config = getattr(pipe.conditioner, "config", None)
    return getattr(config, "layout_size", None) is not None


def resolve_dtype(options: Mapping[str, object]) -> dict[str, object]:
    """The options of `from_pretrained` with one `dtype`; diffusers knows it by two names.

    Raises:
        ValueError: Both are given, or what is given is no type of weights.
    """
    options = dict(options)
    given = {name: options.pop(name) for name in ("dtype", "torch_dtype") if name in options}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ValueError("`dtype` and `torch_dtype` are two names of one option: give `dtype`.")
    for name, value in given.items():
        if isinstance(value, Mapping):  # a type for each part
            return {**options, "dtype": {key: _find_dtype(name, v) for key, v in value.items()}}
        return {**options, "dtype": _find_dtype(name, value)}
    return {**options, "dtype": torch.float32}


def _find_dtype(name: str, value: object) -> torch.dtype:
    found = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(
            f"`{name}` must be a floating type such as torch.float16 or 'bfloat16', got {value!r}; "
            "without it the networks are float32."
        )
    return found


def _pairs(pipe: DiffusionPipeline) -> list[tuple[tuple[str, object], tuple[str, object]]]:
    """What must be the same: (name, value) of both sides."""
    tokenizer, rig = pipe.tokenizer, pipe.rig
    configs = {
        name: getattr(part, "config", None)
        for name in ("conditioner", "point_generator", "gaussian_decoder", "rig_regressor")
        if (part := getattr(pipe, name)) is not None
    }

    def of(part: str, *path: str) -> tuple[str, object]:
        value = configs.get(part)
        for name in path:
            value = getattr(value, name, None)
        return ".".join((part, "config", *path)), value

    vocabulary = [
        (of("point_generator", name), (f"tokenizer.{name}", getattr(tokenizer, name)))
        for name in ("num_bins", "num_faces", "token_order")
    ]
    is_anchored = getattr(configs["point_generator"], "binding_head", "free") == "anchored"
    in_cubes = ("conditioner", "gaussian_decoder", *(["point_generator"] if is_anchored else []))
    cubes = [
        (of(part, name), (f"tokenizer.{name}", getattr(tokenizer, name)))
        for part in in_cubes
        for name in ("cube_center", "cube_half_extent")
    ]
    width, states = of("conditioner", "hidden_size"), of("point_generator", "hidden_size")
    sizes = [
        (of(part, *path), ("image_processor.size", _processor_size(pipe)))
        for part, path in PORTRAIT_SIZES.items()
        if part in configs
    ]
    looks = getattr(configs["gaussian_decoder"], "image_inputs", "none") == "projected"
    sights = [
        (of("gaussian_decoder", "num_sight_features"), ("projection", NUM_SIGHT_FEATURES))
    ]  # fmt: skip
    return [
        (("tokenizer.num_faces", tokenizer.num_faces), ("rig.num_faces", rig.num_faces)),
        *vocabulary,
        *cubes,
        (of("gaussian_decoder", "bin_size"), ("tokenizer.bin_size", tokenizer.bin_size)),
        (of("point_generator", "cross_attention_size"), width),
        (of("gaussian_decoder", "cross_attention_size"), width),
        (of("gaussian_decoder", "generator_hidden_size"), states),
        (of("rig_regressor", "num_betas"), ("rig.num_betas", rig.num_betas)),
        (of("rig_regressor", "num_expressions"), ("rig.num_expressions", rig.num_expressions)),
        *sizes,
        *(sights if looks else []),
    ]


def _processor_size(pipe: DiffusionPipeline) -> object:
    return getattr(pipe.image_processor, "size", None)


def _is_same(value: object, wanted: object) -> bool:
    if isinstance(value, float) or isinstance(wanted, float):
        return math.isclose(value, wanted, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(value, list | tuple):
        pairs = zip(value, wanted, strict=False)
        return len(value) == len(wanted) and all(_is_same(a, b) for a, b in pairs)
    return value == wanted
