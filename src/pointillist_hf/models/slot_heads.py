# SPDX-License-Identifier: Apache-2.0
"""Softmaxes over what a slot may hold: bins or faces, and the end where a point may start.

All of them share the rows of one output matrix. Equal to the softmax over the whole vocabulary
under the masks of grammar level "types", at a third of the cost. No step depends on values, so
`torch.compile` sees one graph.

With `binding_head="anchored"`, which departs from the paper, a face has no row of its own: it is
known by where it lies on the tracked head, and bins are also counted from the face of their point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad, silu

from .attention_blocks import fourier_features
from .configuration_point_generator import PointGeneratorConfig
from .tokenization_points import TOKENS_PER_POINT, TokenLayout

IGNORED = -100  # as a label: nothing is predicted here
NORMAL_SIZE = 3


@dataclass(frozen=True)
class FaceTable:
    """The faces of B heads, as embeddings and as places."""

    embeddings: Tensor  # [B, F, D]
    places: Tensor  # x, y, z of the centres, in bins from the cube's corner [B, F, 3]

    def expand(self, batch: int) -> FaceTable:
        """The one head of a table for so many rows."""
        return FaceTable(self.embeddings.expand(batch, -1, -1), self.places.expand(batch, -1, -1))

    def rows(self, values: Tensor, faces: Tensor) -> Tensor:
        """Values [B, F, C] of faces [B, P]; of face 0 where there is none. [B, P, C]"""
        batch, count = values.shape[:2]
        first = count * torch.arange(batch, device=faces.device)[:, None]
        return nn.functional.embedding(faces.clamp(0, count - 1) + first, values.flatten(0, 1))


class OffsetLogits(nn.Linear):
    """Logits that depend on how far a value is from an anchor; the ends stand for all beyond."""

    def forward(self, states: Tensor, anchors: Tensor, count: int) -> Tensor:
        """States [B, P, D], anchors [B, P] -> logits of the values 0 to count - 1. [B, P, count]"""
        by_offset = super().forward(states)
        reach = self.out_features // 2
        values = torch.arange(count, device=states.device)
        return by_offset.gather(-1, (values - anchors[..., None] + reach).clamp(0, 2 * reach))


class FaceAnchors(nn.Module):
    """Embeds faces by where they lie on a head, and scores tokens relative to them."""

    def __init__(self, config: PointGeneratorConfig) -> None:
        super().__init__()
        size, hidden_size = config.hidden_size, config.anchor_hidden_size
        self.config = config
        # Up to waves of two bins, so that neighbours differ.
        self.num_frequencies = math.ceil(math.log2(config.num_bins)) + 1
        num_features = 3 + 6 * self.num_frequencies + NORMAL_SIZE
        self.hidden_proj = nn.Linear(num_features, hidden_size)
        self.out_proj = nn.Linear(hidden_size, size)
        self.norm = nn.RMSNorm(size, eps=config.rms_norm_eps)
        self.scale = nn.Parameter(torch.tensor(config.initializer_range))
        self.is_first = config.token_order[0] == "b"
        if self.is_first:
            self.rest_proj = nn.Linear(3, config.depth_hidden_size, bias=False)
            self.slot_logits = nn.ModuleList(
                OffsetLogits(size, 2 * config.anchor_reach + 1) for _ in range(TOKENS_PER_POINT)
            )

    def forward(self, face_anchors: Tensor, face_rows: Tensor) -> FaceTable:
        """What the faces are on these heads.

        Args:
            face_anchors: Of `HeadRig.face_anchors`, at least float32: centre in metres, normal.
                [B, F, 6]
            face_rows: What is learned of each face, the same on every head. [F, D]
        """
        # Half precision cannot tell neighbouring bins apart.
        with torch.autocast(face_anchors.device.type, enabled=False):
            centers, normals = face_anchors.split(3, dim=-1)
            center = centers.new_tensor(self.config.cube_center)
            coords = (centers - center) / self.config.cube_half_extent
            waves = fourier_features(coords, self.num_frequencies, base=torch.pi / 2)
            features = torch.cat([waves, normals], dim=-1)
        hidden = silu(self.hidden_proj(features.to(self.hidden_proj.weight.dtype)))
        embeddings = self.norm((self.out_proj(hidden) + face_rows).to(face_rows.dtype))
        return FaceTable(self.scale * embeddings, (coords + 1) / 2 * self.config.num_bins)

    def rests(self, faces: FaceTable, bindings: Tensor) -> Tensor:
        """Where in their bins the anchors of points [B, P] lie, for the depth head. [B, P, D]"""
        places = faces.rows(faces.places, bindings)
        return self.rest_proj((places - places.floor() - 0.5).to(self.rest_proj.weight.dtype))

    def score(
        self, states: Tensor, slot: int, weight: Tensor, faces: FaceTable, bindings: Tensor
    ) -> Tensor:
        """Logits of the slot's bins or faces.

        Args:
            states: [B, P, D]
            slot: The slot that they predict.
            weight: Output matrix. [V, D]
            faces: Of the B heads.
            bindings: Of the same point, or of the one before where the slot is the binding's; -1
                where there is none. [B, P]
        """
        axis = self.config.token_order[slot]
        if axis == "b":
            logits, anchors = states @ faces.embeddings.mT, bindings
        else:
            logits = linear(states, weight[: self.config.num_bins])
            place = "xyz".index(axis)
            anchors = faces.rows(faces.places[..., place, None], bindings)[..., 0].floor().long()
        if not self.is_first:
            return logits
        return logits + self.slot_logits[slot](states, anchors, logits.shape[-1])


@dataclass(frozen=True)
class Anchoring:
    """What the states of tokens are scored with beside the output matrix."""

    anchors: FaceAnchors
    faces: FaceTable
    bindings: Tensor  # the face of each token's point, -1 where there is none [B, L]


def score_slot(
    states: Tensor,
    slot: int,
    weight: Tensor,
    layout: TokenLayout,
    anchoring: Anchoring | None = None,
    bindings: Tensor | None = None,
) -> Tensor:
    """Logits of a slot's own tokens, and behind them of the end in slot 0.

    Args:
        states: That predict the slot. [B, P, D]
        slot: 0 to 3.
        weight: Output matrix. [V, D]
        layout: The vocabulary.
        anchoring: Of anchored bindings.
        bindings: Its bindings at these states. [B, P]

    Returns:
        [B, P, bins or faces, or one more]
    """
    low, high = layout.slot_range(slot)
    end = weight[layout.eos_token_id][None]
    if anchoring is None:
        rows = weight[low:high]
        return linear(states, torch.cat([rows, end]) if slot == 0 else rows)
    logits = anchoring.anchors.score(states, slot, weight, anchoring.faces, bindings)
    return torch.cat([logits, linear(states, end)], dim=-1) if slot == 0 else logits


def typed_losses(
    states: Tensor,
    labels: Tensor,
    weight: Tensor,
    layout: TokenLayout,
    anchoring: Anchoring | None = None,
) -> Tensor:
    """Nats of every label; sequences start at a point.

    Args:
        states: The one at t predicts label t + 1. [B, L, D]
        labels: `IGNORED` costs nothing. [B, L]
        weight: Output matrix. [V, D]
        layout: The vocabulary.
        anchoring: Of the states, with anchored bindings.

    Returns:
        Aligned with the labels, zero at the first and at ignored ones. [B, L]
    """
    losses = states.new_zeros(labels.shape, dtype=torch.promote_types(states.dtype, torch.float32))
    for slot in range(TOKENS_PER_POINT):
        first = slot or TOKENS_PER_POINT
        targets = labels[:, first::TOKENS_PER_POINT]
        before = slice(first - 1, first - 1 + TOKENS_PER_POINT * targets.shape[1], TOKENS_PER_POINT)
        low, high = layout.slot_range(slot)
        if slot == 0:
            targets = torch.where(targets == layout.eos_token_id, high, targets)
        targets = torch.where(targets == IGNORED, targets, targets - low)
        bindings = None if anchoring is None else anchoring.bindings[:, before]
        logits = score_slot(states[:, before], slot, weight, layout, anchoring, bindings)
        logits = logits.to(losses.dtype)
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


def typed_logits(
    states: Tensor,
    weight: Tensor,
    layout: TokenLayout,
    next_slot: int,
    anchoring: Anchoring | None = None,
) -> Tensor:
    """Logits of the slots' own tokens; those of all others are the lowest finite number.

    Args:
        states: Of successive tokens. [B, L, D]
        weight: Output matrix. [V, D]
        layout: The vocabulary.
        next_slot: The slot that the last of the states predicts.
        anchoring: Of the states, with anchored bindings.

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
        rows = slice(place, None, TOKENS_PER_POINT)
        bindings = None if anchoring is None else anchoring.bindings[:, rows]
        scores = score_slot(states[:, rows], slot, weight, layout, anchoring, bindings)
        logits[:, rows, low:high] = scores[..., : high - low].to(logits.dtype)
        if slot == 0:
            logits[:, rows, end] = scores[..., -1].to(logits.dtype)
    return logits
