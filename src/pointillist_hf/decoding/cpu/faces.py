# SPDX-License-Identifier: Apache-2.0
"""The faces of heads as the decoding kernels read them, for bindings that are anchored on them.

Computed once per generation: what depends on a head does not depend on the tokens.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from ...models.modeling_point_generator import PointGeneratorForCausalLM
from ...models.slot_heads import FaceTable
from ...models.tokenization_points import TOKENS_PER_POINT
from .anchoring import ENDS
from .records import DepthInputs, Faces, Weights
from .weights import WeightFormat, allocate, flatten, group_rows, normalize_embeddings, store


def add_faces(
    model: PointGeneratorForCausalLM,
    weights: Weights,
    face_anchors: Tensor,
    weight_format: WeightFormat,
) -> tuple[Weights, Faces]:
    """The network with the faces of the heads among its inputs, and how they are scored.

    Args:
        model: With anchored bindings.
        weights: Of the model.
        face_anchors: Of the rows; heads that are alike are kept once. [B, F, 6 or more]
        weight_format: How the faces' embeddings are stored.
    """
    layout, (batch, count) = model.config.layout, face_anchors.shape[:2]
    different, heads = torch.unique(face_anchors, dim=0, return_inverse=True)
    table = embed_faces(model, different)
    slot = layout.slot_of("b")
    shifts = np.zeros((batch, TOKENS_PER_POINT), np.int64)
    shifts[:, slot] = count * heads.numpy()
    numbers, scales = store(table.embeddings, weight_format)
    groups = group_rows(numbers)
    matrices = allocate(groups.size, groups.dtype)
    matrices[:] = groups.reshape(-1)
    num_heads = len(different)
    anchors = model.model.face_anchors
    reach = model.config.anchor_reach if anchors.is_first else 0
    width = 2 * reach + 1 + ENDS if reach else 0
    faces = Faces(
        matrices=matrices,
        starts=np.arange(num_heads) * (groups.size // num_heads),
        first_scales=np.arange(num_heads) * count,
        scales=scales.reshape(-1),
        heads=heads.numpy(),
        shifts=shifts.reshape(-1),
        slot=slot,
        reach=reach,
        bins=_find_bins(table, layout.token_order) if reach else np.zeros(0, np.int64),
        rests=_find_rests(model, table) if reach else np.zeros(0, np.float32),
        biases=_join_biases(model, width) if reach else np.zeros(0, np.float32),
        near=np.zeros(batch * width, np.float32),
    )
    return weights._replace(inputs=_join_inputs(model, weights.inputs, table, slot)), faces


def embed_faces(model: PointGeneratorForCausalLM, face_anchors: Tensor) -> FaceTable:
    """`PointGeneratorModel.embed_faces` in float32, whatever the model is stored in."""
    layout, network = model.config.layout, model.model
    rows = network.embed_tokens.weight[layout.binding_offset : layout.bos_token_id]
    anchors = _in_float32(network.face_anchors)
    table = anchors(face_anchors, rows.detach().float())
    return FaceTable(table.embeddings.detach(), table.places)


def _in_float32(module: nn.Module) -> nn.Module:
    is_single = all(parameter.dtype == torch.float32 for parameter in module.parameters())
    return module if is_single else copy.deepcopy(module).float()


def _find_bins(table: FaceTable, token_order: str) -> ndarray:
    """Where the centres lie along the axes of the slots after the first. [R F 3]"""
    axes = ["xyz".index(axis) for axis in token_order[1:]]
    return table.places[..., axes].floor().long().reshape(-1).numpy()


def _find_rests(model: PointGeneratorForCausalLM, table: FaceTable) -> ndarray:
    """What the small transformer is told of each anchor's place in its bins. [R F D2]"""
    heads, count = table.places.shape[:2]
    bindings = torch.arange(count).expand(heads, -1)
    return flatten(_in_float32(model.model.face_anchors).rests(table, bindings))


def _join_biases(model: PointGeneratorForCausalLM, width: int) -> ndarray:
    """[4 width]"""
    rows = [part.bias.detach().float() for part in model.model.face_anchors.slot_logits]
    return flatten(*(nn.functional.pad(row, (0, width - len(row))) for row in rows))


def _join_inputs(
    model: PointGeneratorForCausalLM, inputs: DepthInputs, table: FaceTable, slot: int
) -> DepthInputs:
    """The inputs with the faces of all heads in the binding's slot."""
    config, depth = model.config, model.model.depth_head
    embeddings = normalize_embeddings(model, table.embeddings.flatten(0, 1))
    first = slot * config.num_bins  # rows of the slots before
    later = np.arange(TOKENS_PER_POINT) > slot
    offsets = inputs.offsets.copy()
    offsets[slot] = first - config.layout.binding_offset
    offsets[later] += len(embeddings)

    def insert(rows: ndarray, matrix: Tensor) -> ndarray:
        size = len(matrix) * first
        own = flatten(embeddings @ matrix.detach().float().mT)
        return np.concatenate([rows[:size], own, rows[size:]])

    points = insert(inputs.points, depth.point_proj.weight.chunk(TOKENS_PER_POINT, dim=1)[slot])
    tokens = inputs.tokens
    if slot < TOKENS_PER_POINT - 1:
        tokens = insert(tokens, depth.token_projs[slot].weight)
    return inputs._replace(offsets=offsets, points=points, tokens=tokens)
