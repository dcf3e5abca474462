# SPDX-License-Identifier: Apache-2.0
"""Point generators, and a Llama that reads as many bytes per token. Weights are random."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pointillist_hf import PointGeneratorConfig, PointGeneratorForCausalLM

CONTEXTS = (256, 12_000)
CONDITIONING = 512  # tokens
CONDITIONING_SIZE = 256


def build_model(size: tuple[int, ...], head: str = "flat") -> PointGeneratorForCausalLM:
    torch.manual_seed(0)
    layers, width, inner, bins, faces = size
    depth = {"loss_head": "typed", "depth_num_hidden_layers": max(layers // 4, 1)}
    config = PointGeneratorConfig(
        num_bins=bins,
        num_faces=faces,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=inner,
        cross_attention_size=CONDITIONING_SIZE,
        point_head=head,
        **(depth if head == "depth" else {}),
    )
    return PointGeneratorForCausalLM(config).eval()


def build_llama(size: tuple[int, ...]) -> LlamaForCausalLM:
    layers, width, inner, bins, faces = size
    config = LlamaConfig(
        vocab_size=bins + faces + 3,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=inner + 2 * width // 3,
        max_position_embeddings=2 * max(CONTEXTS),
    )
    return LlamaForCausalLM(config).eval()


def round_to_bfloat16(model: PointGeneratorForCausalLM) -> PointGeneratorForCausalLM:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return model
