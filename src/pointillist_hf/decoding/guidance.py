# SPDX-License-Identifier: Apache-2.0
"""Classifier-free guidance: a cloud follows its portrait more closely than the network would alone.

Every cloud has two streams that are fed the same tokens: one sees the portrait, the other the head
alone. Logits go from the blind stream's through the seeing one's, and beyond at scales above 1. In
a batch the two rows of a cloud lie side by side, the seeing one first. The paper samples without.
Ho and Salimans, Classifier-Free Diffusion Guidance, 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from ..geometry.number_checks import check_finite, check_number
from ..geometry.structures import check_shape
from ..models.layout_features import hide_layouts

MAX_GUIDANCE = 1e4  # logits times more could overflow where they are low
ROWS = ("encoder_hidden_states", "encoder_attention_mask", "face_anchors")  # options with rows


def count_streams(guidance_scale: float) -> int:
    """Rows of a cloud: at a scale of 1 the blind stream would change nothing, so there is none."""
    return 1 if guidance_scale == 1 else 2


def check_guidance(
    guidance_scale: object, encoder_hidden_states: Tensor, unconditional_states: Tensor | None
) -> float:
    """The scale as a number.

    Raises:
        ValueError: It is none, or is not 1 and nobody says what the blind stream looks at.
    """
    scale = check_number("guidance_scale", guidance_scale, 0, MAX_GUIDANCE)
    if count_streams(scale) == 1:
        return scale
    if unconditional_states is None:
        raise ValueError(
            f"`unconditional_states` must be given with a `guidance_scale` other than 1, got "
            f"{scale:g} without: take `conditioner.hide_portraits(encoder_hidden_states)`."
        )
    check_shape("unconditional_states", unconditional_states, tuple(encoder_hidden_states.shape))
    check_finite("unconditional_states", unconditional_states)
    return scale


def pair_streams(seeing: Tensor, blind: Tensor) -> Tensor:
    """Rows of both streams, those of a cloud side by side. [B, ...] twice -> [2 B, ...]"""
    return torch.stack([seeing, blind.to(seeing)], dim=1).flatten(0, 1)


def spread_rows(
    options: dict[str, object], num_return_sequences: int, unconditional_states: Tensor | None
) -> None:
    """Gives the options of a generation as many rows as there will be streams, in place.

    Args:
        options: With one row for each conditioning.
        num_return_sequences: Clouds of each of them.
        unconditional_states: What the blind streams look at [B, M, C]; None for clouds of one
            stream.
    """
    for name in ROWS:
        rows = options.get(name)
        if rows is None:
            continue
        rows = rows.repeat_interleave(num_return_sequences, dim=0)
        if unconditional_states is not None:
            blind = rows
            if name == "face_anchors":
                blind = hide_layouts(rows)
            if name == "encoder_hidden_states":
                blind = unconditional_states.repeat_interleave(num_return_sequences, dim=0)
            rows = pair_streams(rows, blind)
        options[name] = rows


class Guidance(LogitsProcessor):
    """Makes one row of the two streams of each cloud, and shows it to further processors.

    Args:
        scale: 0 is the blind stream, 1 the seeing one.
        processors: Get a row for each cloud.
    """

    def __init__(self, scale: float, processors: Sequence[LogitsProcessor]) -> None:
        self.scale, self.processors = scale, processors

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The same scores for both streams. [2 B, L], [2 B, V] -> [2 B, V]"""
        seeing, blind = scores.unflatten(0, (-1, 2)).unbind(1)
        scores = blind + self.scale * (seeing - blind)
        for processor in self.processors:
            scores = processor(input_ids[::2], scores)
        return scores.repeat_interleave(2, dim=0)
