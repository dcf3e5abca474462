# SPDX-License-Identifier: Apache-2.0
"""Seconds of a whole cloud of a generator that reads the tracked head. Weights are random.

The model is that of `--size tiny-anchored`, at 512 bins and the faces of our head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from pointillist_hf import PointGeneratorForCausalLM, PointTokenizer, ProceduralHeadRig
from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.models.layout_features import append_layouts
from pointillist_hf.training.recipes import build_generator_config

from .clock import now
from .networks import round_to_bfloat16

NUM_BINS, CONDITIONING = 512, 98  # bins; tokens of the tiny conditioner
NUM_POINTS = 5000
NUM_REFERENCE_POINTS = 700  # the window is full after 512
GRAMMARS = ("types", "every_face")


def build_anchored(rig: ProceduralHeadRig) -> PointGeneratorForCausalLM:
    """The same random weights at each call, none of them left at zero."""
    torch.manual_seed(0)
    tokenizer = PointTokenizer(
        num_bins=NUM_BINS,
        num_faces=len(rig.faces),
        token_order="byzx",
        cube_center=(0.0, -0.035, -0.03),
        cube_half_extent=0.25,
    )
    model = PointGeneratorForCausalLM(build_generator_config("tiny-anchored", tokenizer))
    for part in model.model.face_anchors.slot_logits:
        torch.nn.init.normal_(part.weight, std=model.config.initializer_range)
    return model.eval()


def time_cloud(
    model: PointGeneratorForCausalLM, rig: ProceduralHeadRig, num_points: int, **options: object
) -> float:
    """Seconds per point, everything that a generation prepares included."""
    context = torch.randn(1, CONDITIONING, model.config.cross_attention_size)
    anchors = append_layouts(rig.face_anchors(rig.neutral().betas), None, model.config)

    def generate(count: int) -> float:
        start = now()
        counts = {"min_points": count, "max_points": count}
        generate_points(model, context, face_anchors=anchors, **counts, **options)
        return (now() - start) / count

    generate(1)  # compiles
    return generate(num_points)


def time_engines(rounds: int) -> Iterator[tuple[str, float]]:
    """Names and seconds per point of the engines and grammars, the fastest of some rounds."""
    rig = ProceduralHeadRig("low")
    model = build_anchored(rig)
    stored = round_to_bfloat16(copy.deepcopy(model))
    yield "reference", time_cloud(model, rig, NUM_REFERENCE_POINTS, engine="reference")
    for name, network, engine in (
        ("compiled", model, "compiled"),
        ("compiled_stored_bf16", stored, "compiled"),
        ("compiled_bfloat16", model, "compiled-bfloat16"),
        ("compiled_int8", model, "compiled-int8"),
    ):
        for grammar in GRAMMARS:
            options = {"engine": engine, "grammar": grammar}
            seconds = min(
                time_cloud(network, rig, NUM_POINTS, **options) for _ in range(max(rounds // 2, 1))
            )
            yield f"{name}_{grammar}", seconds


def measure_anchored(rounds: int = 5) -> dict[str, object]:
    """Seconds of a cloud for each engine, and how many times faster than the reference it is."""
    seconds = dict(time_engines(rounds))
    return {
        "points": NUM_POINTS,
        "engines": {
            name: {
                "seconds": round(NUM_POINTS * value, 2),
                "times_reference": round(seconds["reference"] / value, 1),
            }
            for name, value in seconds.items()
        },
    }
