# SPDX-License-Identifier: Apache-2.0
"""Whether the engines draw the same clouds on the checkpoint, and what rounding costs there."""

from __future__ import annotations

import torch
from torch import Tensor

from pointillist_hf import AvatarPipeline, PointGeneratorForCausalLM
from pointillist_hf.decoding.cpu.rounding import BLOCK
from pointillist_hf.decoding.cpu.weights import quantize_rows
from pointillist_hf.decoding.generation import (
    WEIGHT_FORMATS,
    PointGenerationOutput,
    generate_points,
)
from pointillist_hf.models.layout_features import append_layouts
from pointillist_hf.models.slot_heads import score_slot
from pointillist_hf.models.tokenization_points import TOKENS_PER_POINT

CHECKPOINT = "model_cards/pointillist-tiny"


def round_blocks(states: Tensor) -> Tensor:
    """States as a rounded matrix meets them."""
    blocks = torch.nn.functional.pad(states, (0, -states.shape[-1] % BLOCK)).unflatten(
        -1, (-1, BLOCK)
    )
    scales = blocks.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return ((blocks / scales).round() * scales).flatten(-2)[..., : states.shape[-1]]


def round_head(head: Tensor, kind: str | None) -> Tensor:
    """The output matrix as an engine has it."""
    if kind == "bfloat16":
        return head.bfloat16().float()
    if kind == "int8":
        numbers, scales = quantize_rows(head)
        return torch.from_numpy(numbers * scales[:, None])
    return head


def divergence(
    model: PointGeneratorForCausalLM,
    cloud: PointGenerationOutput,
    kind: str | None,
    *,
    states: Tensor,
    anchors: Tensor,
) -> float:
    """Nats per point from what an engine draws from to what the model has there.

    Kullback's and Leibler's, at the tokens that the engine has drawn, ends among them; the first
    token of a cloud is left out. Faces that are anchored are scored without rounding.
    """
    layout, exact_head = model.config.layout, model.lm_head.weight
    head = round_head(exact_head, kind)
    output = model.model(cloud.input_ids, states, use_cache=False, face_anchors=anchors)
    points = slice(TOKENS_PER_POINT, -TOKENS_PER_POINT)
    found = output.last_hidden_state[:, points].unflatten(1, (-1, TOKENS_PER_POINT))
    bindings = cloud.input_ids[:, points].unflatten(1, (-1, TOKENS_PER_POINT))
    bindings = bindings[..., layout.slot_of("b")] - layout.binding_offset
    own = cloud.token_hidden_states
    own = round_blocks(own) if kind == "int8" else own
    is_real = torch.arange(own.shape[1]) < cloud.num_points[:, None]
    bindings = bindings.masked_fill(~is_real, -1)
    total = 0.0
    for slot in range(TOKENS_PER_POINT):
        scored = ((slot + 1) % TOKENS_PER_POINT, layout, output.anchoring, bindings)
        q, p = (
            score_slot(values[:, :, slot], scored[0], weight, *scored[1:]).log_softmax(-1)
            for values, weight in ((own, head), (found, exact_head))
        )
        total += float(((q.exp() * (q - p)).sum(-1) * is_real).sum())
    return total / float(cloud.num_points.sum())


@torch.no_grad()
def check(num_clouds: int = 16) -> dict[str, object]:
    """On the checkpoint: do the engines agree, and how far off are the rounded ones?"""
    pipe = AvatarPipeline.from_pretrained(CHECKPOINT)
    photograph = ["examples/images/astronaut.jpg"]
    tracked = pipe.track_portraits(photograph)
    rig_params, context, layouts = pipe.encode_image(photograph, None, tracked)
    model = pipe.point_generator
    anchors = pipe.rig.face_anchors(rig_params.betas)
    anchors = append_layouts(anchors, layouts, model.config)
    options = {"num_return_sequences": num_clouds, "max_points": 1400, "min_p": 0.0}
    options["face_anchors"] = anchors
    copies = {
        "states": context.expand(num_clouds, -1, -1),
        "anchors": anchors.expand(num_clouds, -1, -1),
    }
    clouds = {
        engine: generate_points(model, context, engine=engine, **options)
        for engine in ("reference", *WEIGHT_FORMATS)
    }
    reference, found = clouds["reference"], clouds["compiled"]
    alike = [
        a == b and torch.equal(ids[: 4 * a + 4], others[: 4 * a + 4])
        for ids, others, a, b in zip(
            reference.input_ids,
            found.input_ids,
            reference.num_points.tolist(),
            found.num_points.tolist(),
            strict=True,
        )
    ]
    return {
        "clouds": num_clouds,
        "points": int(reference.num_points.sum()),
        "clouds_alike": sum(alike),
        "divergence_nats_per_point": {
            engine: round(divergence(model, cloud, WEIGHT_FORMATS.get(engine), **copies), 6)
            for engine, cloud in clouds.items()
        },
    }
