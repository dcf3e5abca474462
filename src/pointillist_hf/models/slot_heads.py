# SPDX-License-Identifier: Apache-2.0
"""Softmaxes over what a slot may hold: bins or faces, and the end where a point may start.

All of them share the rows of one output matrix. Equal to the softmax over the whole vocabulary
under the masks of grammar level "types", at a third of the cost. No step depends on values, so
`torch.compile` sees one graph.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, pad

from .tokenization_points import TOKENS_PER_POINT, TokenLayout

IGNORED = -100  # as a label: nothing is predicted here


def typed_losses(states: Tensor, labels: Tensor, weight: Tensor, layout: TokenLayout) -> Tensor:
    """Nats of every label; sequences start at a point.

    Args:
        states: The one at t predicts label t + 1. [B, L, D]
        labels: `IGNORED` costs nothing. [B, L]
        weight: Output matrix. [V, D]
        layout: The vocabulary.

    Returns:
        Aligned with the labels, zero at the first and at ignored ones. [B, L]
    """
    losses = states.new_zeros(labels.shape, dtype=torch.promote_types(states.dtype, torch.float32))
    for slot in range(TOKENS_PER_POINT):
        first = slot or TOKENS_PER_POINT
        targets = labels[:, first::TOKENS_PER_POINT]
        before = states[:, first - 1 :: TOKENS_PER_POINT][:, : targets.shape[1]]
        low, high = layout.slot_range(slot)
        rows = weight[low:high]
        if slot == 0:
            rows = torch.cat([rows, weight[layout.eos_token_id][None]])
            targets = torch.where(targets == layout.eos_token_id, high, targets)
        targets = torch.where(targets == IGNORED, targets, targets - low)
        logits = linear(before, rows).to(losses.dtype)
        losses[:, first::TOKENS_PER_POINT] = cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
        ).unflatten(0, targets.shape)
    return losses


def full_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Nats of every label under the whole vocabulary, as `typed_losses` returns them.

    Args:
        logits: [B, L, V]
        labels: [B, L]
    """
    logits = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    targets = labels[:, 1:]
    losses = cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return pad(losses.unflatten(0, targets.shape), (1, 0))


def typed_logits(states: Tensor, weight: Tensor, layout: TokenLayout, next_slot: int) -> Tensor:
    """Logits of the slots' own tokens; those of all others are the lowest finite number.

    Args:
        states: Of successive tokens. [B, L, D]
        weight: Output matrix. [V, D]
        layout: The vocabulary.
        next_slot: The slot that the last of the states predicts.

    Returns:
        [B, L, V]
    """
    length, end = states.shape[1], layout.eos_token_id
    # Finite, so that a softmax over other tokens only, as after the end, is no NaN.
    lowest = torch.finfo(states.dtype).min
    logits = states.new_full((*states.shape[:2], layout.vocab_size), lowest)
    for place in range(min(length, TOKENS_PER_POINT)):
        slot = (next_slot - (length - 1) + place) % TOKENS_PER_POINT
        low, high = layout.slot_range(slot)
        chosen = states[:, place::TOKENS_PER_POINT]
        logits[:, place::TOKENS_PER_POINT, low:high] = linear(chosen, weight[low:high])
        if slot == 0:
            logits[:, place::TOKENS_PER_POINT, end] = linear(chosen, weight[end][None])[..., 0]
    return logits
