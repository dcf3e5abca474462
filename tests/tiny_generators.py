# SPDX-License-Identifier: Apache-2.0
"""Point generators of a few thousand weights, token ids for them, and calls in portions.

Used by the tests of models, of decoding and of training.
"""

import pytest
import torch

from pointillist_hf import PointGeneratorConfig, PointGeneratorForCausalLM
from pointillist_hf.training.windows import cut_window

WINDOW, CONTEXT = 16, 24
SIZES = {
    "num_bins": 16,
    "num_faces": 20,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "sliding_window": WINDOW,
    "cross_attention_size": CONTEXT,
    "initializer_range": 0.2,  # far from uniform, so that differences show
}
NARROW_DEPTH = {
    "point_head": "depth",
    "loss_head": "typed",
    "depth_num_hidden_layers": 2,
    "depth_hidden_size": 24,
    "depth_num_attention_heads": 3,
    "depth_intermediate_size": 40,
}
WIDE_DEPTH = {
    **NARROW_DEPTH,
    "depth_hidden_size": 48,  # wider than the large transformer
    "depth_intermediate_size": 72,
}
HEADS = {"flat": {}, "depth": WIDE_DEPTH}
ANCHORED = {"binding_head": "anchored", "anchor_reach": 3, "anchor_hidden_size": 12}
each_head = pytest.mark.parametrize("head", HEADS)
each_order = pytest.mark.parametrize("order", ["xyzb", "yzxb", "byzx"])


def build_config(**changes):
    return PointGeneratorConfig(**{**SIZES, **changes})


def build_generator(*, attention="sdpa", **changes):
    """The same weights at each call."""
    torch.manual_seed(1)
    model = PointGeneratorForCausalLM(build_config(**changes)).eval()
    model.set_attn_implementation(attention)
    return model


def build_anchored(order="byzx", **changes):
    """With offset logits that are not zero, as they are only before training."""
    model = build_generator(token_order=order, **{**NARROW_DEPTH, **ANCHORED, **changes})
    for parameter in model.model.face_anchors.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_heads(batch=2, num_faces=20):
    """Faces all over the cube, as anchored bindings want them. [B, F, 6]"""
    centers = 0.3 * (2 * torch.rand(batch, num_faces, 3) - 1) + torch.tensor([0.0, -0.03, -0.04])
    normals = torch.nn.functional.normalize(torch.randn(batch, num_faces, 3), dim=-1)
    return torch.cat([centers, normals], dim=-1)


def random_ids(config, batch=2, num_points=10):
    """Whole sequences with every token in its slot."""
    layout = config.layout
    columns = [torch.randint(*layout.slot_range(s), (batch, num_points)) for s in range(4)]
    body = torch.stack(columns, dim=-1).flatten(1)
    start, end = (torch.full((batch, 4), i) for i in (layout.bos_token_id, layout.eos_token_id))
    return torch.cat([start, body, end], dim=1)


def label_tokens(ids, layout):
    """What the loss is told about whole sequences."""
    rows = [cut_window(row, 0, ids.shape[1], layout) for row in ids]
    return torch.stack([labels for _, labels in rows])


@torch.no_grad()
def feed(model, ids, context, sizes, cache=None, mask=None):
    """Final hidden states when the tokens come in portions, and the cache after the last.

    Args:
        sizes: Tokens of each portion.
        cache: What is gone on with; None for the model's own choice.
        mask: Which tokens count, also those of earlier portions. [B, L]
    """
    states, start = [], 0
    for size in sizes:
        seen = None if mask is None else mask[:, : start + size]
        output = model.model(
            ids[:, start : start + size],
            context,
            attention_mask=seen,
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        states.append(output.last_hidden_state)
        start += size
    return torch.cat(states, dim=1), cache
