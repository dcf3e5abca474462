# SPDX-License-Identifier: Apache-2.0
"""The weights of a point generator as the decoding kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from ...models.modeling_point_generator import PointGeneratorForCausalLM
from ...models.slot_heads import OffsetLogits
from ...models.tokenization_points import TOKENS_PER_POINT
from .arithmetic import LANES, PADDING, round_up
from .records import DepthInputs, FlatInputs, Weights

CACHE_LINE = 64  # bytes

WeightFormat = Literal[
    "exact",  # the model's numbers: float32, or bfloat16 where that holds all of them
    "bfloat16",  # rounded to bfloat16
    "int8",  # rounded, with a scale per row of a matrix
]


def find_obstacle(model: PointGeneratorForCausalLM) -> str | None:
    """Why the kernels cannot stand in for a model, or None if they can."""
    config = model.config
    if config.hidden_act != "silu":
        return f"the `hidden_act` is {config.hidden_act!r}, not 'silu'"
    if model.training and config.attention_dropout:
        return "the model is in training mode, with dropout"
    known = nn.Linear, OffsetLogits
    if any(type(matrix) not in known for matrix in [*_matrices(model), *_folded(model)]):
        return "some of the matrices have been replaced by other modules"
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu":
            return f"`{name}` is on {parameter.device}, not on the CPU"
        if parameter.dtype not in (torch.float32, torch.bfloat16):
            return f"`{name}` is of {parameter.dtype}, not float32 or bfloat16"
    return None


def _matrices(model: PointGeneratorForCausalLM) -> list[nn.Module]:
    """The matrices of all layers in the order of the kernels, the depth head's, then the heads."""
    found = []
    for layer in model.model.layers:
        cross, own, mlp = layer.cross_attn, layer.self_attn, layer.mlp
        found += [cross.q_proj, cross.o_proj, own.q_proj, own.k_proj, own.v_proj, own.o_proj]
        found += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    if model.config.point_head == "depth":
        depth = model.model.depth_head
        found += [depth.state_proj, depth.out_proj]
        for layer in depth.layers:
            own, mlp = layer.slot_attn, layer.mlp
            found += [own.q_proj, own.k_proj, own.v_proj, own.o_proj]
            found += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    if model.config.binding_head == "anchored" and model.model.face_anchors.is_first:
        found += model.model.face_anchors.slot_logits
    return [*found, model.lm_head]


def _folded(model: PointGeneratorForCausalLM) -> list[nn.Module]:
    """The matrices that the kernels find multiplied with the embeddings."""
    if model.config.point_head == "flat":
        return []
    return [model.model.depth_head.point_proj, *model.model.depth_head.token_projs]


def quantize_rows(rows: Tensor) -> tuple[ndarray, ndarray]:
    """Int8 numbers of rows [..., k], and what each of them is multiplied by [...]."""
    rows = rows.float()
    scales = rows.abs().amax(-1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (rows / scales[..., None]).round().to(torch.int8).numpy(), scales.numpy()


def bfloat16_bits(tensor: Tensor) -> ndarray:
    """The nearest bfloat16 numbers, in the bits of uint16."""
    return tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint16)


def _fits_bfloat16(matrix: Tensor) -> bool:
    return matrix.dtype == torch.bfloat16 or bool(
        (matrix.contiguous().view(torch.int32) & 0xFFFF == 0).all()
    )


def flatten(*tensors: Tensor) -> ndarray:
    """One float32 array of all; a single float32 tensor is not copied."""
    flat = [tensor.detach().float().reshape(-1) for tensor in tensors]
    return (flat[0] if len(flat) == 1 else torch.cat(flat)).numpy()


def normalize_embeddings(model: PointGeneratorForCausalLM, embeddings: Tensor) -> Tensor:
    """Embeddings as the depth head takes tokens in. [..., D]"""
    norm = model.model.depth_head.token_norm
    weight = norm.weight.detach().float()
    return nn.functional.rms_norm(embeddings.detach().float(), weight.shape, weight, norm.eps)


def _build_inputs(model: PointGeneratorForCausalLM) -> FlatInputs | DepthInputs:
    """What the tokens turn into where the transformers take them in."""
    network = model.model
    if model.config.point_head == "flat":
        return FlatInputs(flatten(network.embed_tokens.weight), flatten(network.embed_slots.weight))
    depth, layout = network.depth_head, model.config.layout
    ranges = [layout.slot_range(slot) for slot in range(TOKENS_PER_POINT)]
    if model.config.binding_head == "anchored":
        # Faces differ from head to head; `faces` puts them in.
        ranges[layout.slot_of("b")] = (0, 0)
    embeddings = normalize_embeddings(model, network.embed_tokens.weight)

    def project(parts: Sequence[Tensor]) -> ndarray:
        """Of each slot's tokens."""
        rows = [
            embeddings[low:high] @ part.detach().float().mT
            for (low, high), part in zip(ranges, parts, strict=False)
        ]
        return flatten(*rows)

    first_rows = np.cumsum([0] + [high - low for low, high in ranges[:-1]])
    starts = embeddings[layout.bos_token_id].repeat(TOKENS_PER_POINT)
    norms = [
        norm.weight for layer in depth.layers for norm in (layer.slot_attn_norm, layer.mlp_norm)
    ]
    return DepthInputs(
        offsets=first_rows - np.array([low for low, _ in ranges]),
        start=flatten(depth.point_proj.weight.detach().float() @ starts),
        points=project(depth.point_proj.weight.chunk(TOKENS_PER_POINT, dim=1)),
        tokens=project([matrix.weight for matrix in depth.token_projs]),
        norms=flatten(*norms),
        out_norm=flatten(depth.norm.weight),
    )


def allocate(count: int, kind: type[np.number]) -> ndarray:
    """Zeros that start where a line of the cache does; they take no memory before they are written.

    One large array instead of many: numpy asks for huge pages, without which reading is slower.
    """
    size = np.dtype(kind).itemsize
    array = np.zeros(count + CACHE_LINE // size, kind)
    start = -array.ctypes.data % CACHE_LINE // size
    return array[start : start + count]


def group_rows(matrices: ndarray) -> ndarray:
    """Matrices [..., n, k] as `arithmetic` tells, with zeros after the last row and column."""
    *rest, n, k = matrices.shape
    size = 4 // matrices.itemsize
    padding = [(0, 0)] * len(rest) + [(0, -n % LANES), (0, -k % PADDING)]
    padded = np.pad(matrices, padding).reshape(*rest, -1, LANES, round_up(k, PADDING) // size, size)
    return padded.swapaxes(-2, -3)


def store(numbers: Tensor, weight_format: WeightFormat) -> tuple[ndarray, ndarray]:
    """Rows [..., k] as they are stored, and what each of them is multiplied by [...]."""
    scales = np.ones(numbers.shape[:-1], np.float32)
    if weight_format == "exact":
        return numbers.float().numpy(), scales
    if weight_format == "bfloat16":
        return bfloat16_bits(numbers), scales
    stored, scales = quantize_rows(numbers)
    return (stored.astype(np.int16) + 128).astype(np.uint8), scales


def build_weights(model: PointGeneratorForCausalLM, weight_format: WeightFormat) -> Weights:
    """The network as the kernels read it, with copies of its matrices.

    If bfloat16 holds all numbers, as after loading a checkpoint that was stored so, they are stored
    in it, which halves what a step reads.
    """
    matrices = [matrix.weight.detach() for matrix in _matrices(model)]
    if weight_format == "exact" and all(map(_fits_bfloat16, matrices)):
        weight_format = "bfloat16"
    counts = [
        round_up(len(matrix), LANES) * round_up(matrix.shape[1], PADDING) for matrix in matrices
    ]
    starts = np.cumsum([0, *counts])
    kinds = {"exact": np.float32, "bfloat16": np.uint16, "int8": np.uint8}
    stored, scales = allocate(starts[-1], kinds[weight_format]), []
    # One after the other, so that besides the copies there is never more than one matrix.
    for matrix, start, count in zip(matrices, starts, counts, strict=False):
        numbers, factors = store(matrix, weight_format)
        group = group_rows(numbers)
        stored[start : start + count].reshape(group.shape)[:] = group
        scales.append(factors)
    norms = [
        norm.weight
        for layer in model.model.layers
        for norm in (layer.cross_attn_norm, layer.self_attn_norm, layer.mlp_norm)
    ]
    return Weights(
        matrices=stored,
        starts=starts[:-1],
        first_scales=np.cumsum([0] + [len(rows) for rows in scales[:-1]]),
        scales=np.concatenate(scales),
        norms=flatten(*norms),
        final_norm=flatten(model.model.norm.weight),
        inputs=_build_inputs(model),
    )


def _sum_bits(tensor: Tensor) -> int:
    kind = torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32
    return int(tensor.contiguous().view(kind).sum())


_prepared: WeakKeyDictionary = WeakKeyDictionary()


def prepare_weights(model: PointGeneratorForCausalLM, weight_format: WeightFormat) -> Weights:
    """`build_weights`, anew if the model's have changed since the last time."""
    # A tensor counts what is done to it in place, but for fused optimizers and work on `.data`;
    # inference tensors count nothing.
    state = [
        (p.data_ptr(), 0 if p.is_inference() else p._version, p.dtype, _sum_bits(p.detach()))
        for p in model.parameters()
    ]
    known = _prepared.setdefault(model, {})
    if weight_format not in known or known[weight_format][0] != state:
        known[weight_format] = state, build_weights(model, weight_format)
    return known[weight_format][1]
