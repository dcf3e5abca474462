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
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad, silu
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from .attention_blocks import fourier_features
from .configuration_point_generator import PointGeneratorConfig
from .tokenization_points import TOKENS_PER_POINT, TokenLayout

IGNORED = -100  # as a label: nothing is predicted here


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
    """Adds to logits by how far a value is from an anchor: a number for each offset within reach.

    Args:
        size: D.
        reach: Offsets on either side.
        has_ends: Whether there are also numbers for all values below, and for all above.
    """

    def __init__(self, size: int, reach: int, *, has_ends: bool) -> None:
        super().__init__(size, 2 * reach + 3 if has_ends else 2 * reach + 1)
        self.reach, self.has_ends = reach, has_ends

    def forward(self, logits: Tensor, states: Tensor, anchors: Tensor, count: int) -> Tensor:
        """Of the values 0 to count - 1, others staying as they are.

        Args:
            logits: [B, P, count or more]
            states: [B, P, D]
            anchors: [B, P]
            count: How many values there are.
        """
        near = super().forward(states).to(logits.dtype)
        lowest = anchors[..., None] - self.reach
        if self.has_ends:
            near, below, above = near.split([2 * self.reach + 1, 1, 1], dim=-1)
            values = torch.arange(logits.shape[-1], device=logits.device)
            ends = torch.where(values < lowest, below, above)
            is_near = (values >= lowest) & (values <= lowest + 2 * self.reach)
            logits = logits + ends.masked_fill(is_near, 0)
        # Few columns are touched: a pass over thousands of faces would cost as much as a layer.
        places = lowest + torch.arange(2 * self.reach + 1, device=logits.device)
        inside = (places >= 0) & (places < count)
        return logits.scatter_add(-1, places.clamp(0, count - 1), near * inside)


class FaceAnchors(nn.Module):
    """Embeds faces by where they lie on a head, and scores tokens relative to them."""

    def __init__(self, config: PointGeneratorConfig) -> None:
        super().__init__()
        size, hidden_size = config.hidden_size, config.anchor_hidden_size
        self.config = config
        # Up to waves of two bins, so that neighbours differ.
        self.num_frequencies = math.ceil(math.log2(config.num_bins)) + 1
        num_features = 6 * self.num_frequencies + config.num_face_features
        self.hidden_proj = nn.Linear(num_features, hidden_size)
        self.out_proj = nn.Linear(hidden_size, size)
        self.norm = nn.RMSNorm(size, eps=config.rms_norm_eps)
        self.scale = nn.Parameter(torch.tensor(config.initializer_range))
        self.is_first = config.token_order[0] == "b"
        if self.is_first:
            self.rest_proj = nn.Linear(3, config.depth_hidden_size, bias=False)
            self.slot_logits = nn.ModuleList(
                # What is sorted by faces goes on with the next few.
                OffsetLogits(size, config.anchor_reach, has_ends=axis != "b")
                for axis in config.token_order
            )

    def forward(self, face_anchors: Tensor | None, face_rows: Tensor) -> FaceTable:
        """What the faces are on these heads.

        Args:
            face_anchors: Of `append_layouts`, at least float32: centre in metres, normal, layout.
                [B, F, 6 or more]
            face_rows: What is learned of each face, the same on every head. [F, D]

        Raises:
            ValueError: There are no anchors, or of another number of faces.
        """
        shape = None if face_anchors is None else tuple(face_anchors.shape)
        wanted = (len(face_rows), self.config.num_face_features)
        if shape is None or shape[1:] != wanted:
            raise ValueError(
                f"`face_anchors` must have shape (B, {wanted[0]}, {wanted[1]}) with "
                f"`binding_head='anchored'`, got {shape}. Take `rig.face_anchors(betas)`, and "
                "`append_layouts` if the generator has `layout_heights`."
            )
        # Half precision cannot tell neighbouring bins apart.
        with torch.autocast(face_anchors.device.type, enabled=False):
            centers, others = face_anchors.tensor_split([3], dim=-1)
            center = centers.new_tensor(self.config.cube_center)
            coords = (centers - center) / self.config.cube_half_extent
            waves = fourier_features(coords, self.num_frequencies, base=torch.pi / 2)
            features = torch.cat([waves, others], dim=-1)
        hidden = silu(self.hidden_proj(features.to(self.hidden_proj.weight.dtype)))
        embeddings = self.norm((self.out_proj(hidden) + face_rows).to(face_rows.dtype))
        return FaceTable(self.scale * embeddings, (coords + 1) / 2 * self.config.num_bins)

    def embed_bindings(
        self, embeddings: Tensor, input_ids: Tensor, faces: FaceTable
    ) -> tuple[Tensor, Tensor]:
        """Puts the faces into the embeddings of tokens that start at a point.

        Args:
            embeddings: [B, L, D]
            input_ids: [B, L]
            faces: Of the B heads.

        Returns:
            Embeddings [B, L, D]; the faces of the points begun, -1 where there is none [B, P].
        """
        layout = self.config.layout
        slots = slice(layout.slot_of("b"), None, TOKENS_PER_POINT)
        bindings = input_ids[:, slots] - layout.binding_offset
        is_face = (bindings >= 0) & (bindings < layout.num_faces)
        bindings = bindings.masked_fill(~is_face, -1)
        known = faces.rows(faces.embeddings, bindings).to(embeddings.dtype)
        embeddings = embeddings.clone()
        embeddings[:, slots] = torch.where(is_face[..., None], known, embeddings[:, slots])
        return embeddings, bindings

    def rests(self, faces: FaceTable, bindings: Tensor) -> Tensor:
        """Where in their bins the anchors of points [B, P] lie, for the depth head. [B, P, D]"""
        places = faces.rows(faces.places, bindings)
        return self.rest_proj((places - places.floor() - 0.5).to(self.rest_proj.weight.dtype))

    def score(
        self, states: Tensor, slot: int, weight: Tensor, faces: FaceTable, bindings: Tensor
    ) -> Tensor:
        """Logits of the slot's bins or faces, and behind them of the end in slot 0.

        Args:
            states: [B, P, D]
            slot: The slot that they predict.
            weight: Output matrix. [V, D]
            faces: Of the B heads.
            bindings: Of the same point, or of the one before where the slot is the binding's; -1
                where there is none. [B, P]
        """
        layout, anchors = self.config.layout, bindings
        low, high = layout.slot_range(slot)
        end = weight[layout.eos_token_id][None]
        axis = layout.token_order[slot]
        if axis == "b":
            rows = faces.embeddings
            if slot == 0:
                rows = torch.cat([rows, end.to(rows.dtype).expand(len(rows), 1, -1)], dim=1)
            logits = states @ rows.mT
        else:
            rows = weight[low:high]
            logits = linear(states, torch.cat([rows, end]) if slot == 0 else rows)
            place = faces.places[..., "xyz".index(axis), None]
            anchors = faces.rows(place, bindings)[..., 0].floor().long()
        if not self.is_first:
            return logits
        return self.slot_logits[slot](logits, states, anchors, high - low)


def embed_heads(
    anchors: FaceAnchors | None, face_anchors: Tensor | FaceTable | None, face_rows: Tensor
) -> FaceTable | None:
    """What a generator knows the faces of B heads by, None with free bindings.

    Args:
        anchors: None with free bindings.
        face_anchors: [B, F, 6 or more], or the answer itself.
        face_rows: [F, D]

    Raises:
        ValueError: The heads are missing, not wanted, or of another rig.
    """
    if anchors is None and face_anchors is not None:
        raise ValueError(
            "`face_anchors` must be None with `binding_head='free'`: nothing looks at them."
        )
    if anchors is None or isinstance(face_anchors, FaceTable):
        return face_anchors
    return anchors(face_anchors, face_rows)


@dataclass(frozen=True)
class Anchoring:
    """What the states of tokens are scored with beside the output matrix."""

    anchors: FaceAnchors
    faces: FaceTable
    bindings: Tensor  # the face of each token's point, -1 where there is none [B, L]

    @classmethod
    def of_points(
        cls, anchors: FaceAnchors, faces: FaceTable, bindings: Tensor, num_points: int
    ) -> Anchoring:
        """Of all tokens of so many points, the bindings of some of them being known. [B, P]"""
        bindings = pad(bindings, (0, num_points - bindings.shape[1]), value=-1)
        return cls(anchors, faces, bindings.repeat_interleave(TOKENS_PER_POINT, dim=1))

    def __getitem__(self, tokens: slice) -> Anchoring:
        """Of some of the tokens."""
        return replace(self, bindings=self.bindings[:, tokens])

    def rests(self, first: int) -> Tensor | None:
        """`FaceAnchors.rests` of the points from this one on, if bindings come first."""
        bindings = self.bindings[:, TOKENS_PER_POINT * first :: TOKENS_PER_POINT]
        return self.anchors.rests(self.faces, bindings) if self.anchors.is_first else None


@dataclass
class PointGeneratorModelOutput(BaseModelOutputWithPastAndCrossAttentions):
    """What transformers' models return, and what anchored bindings are scored with."""

    anchoring: Anchoring | None = None


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
    if anchoring is not None:
        return anchoring.anchors.score(states, slot, weight, anchoring.faces, bindings)
    low, high = layout.slot_range(slot)
    rows, end = weight[low:high], weight[layout.eos_token_id][None]
    return linear(states, torch.cat([rows, end]) if slot == 0 else rows)


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
