# SPDX-License-Identifier: Apache-2.0
"""What a token makes us read, and how fast memory can be read.

A step has to read the weights of its layers and of its slot's part of the head, and the keys and
values. The small transformer's weights are counted for each slot, although caches may keep them.
"""

from __future__ import annotations

import torch

from pointillist_hf import PointGeneratorConfig
from pointillist_hf.models.tokenization_points import TOKENS_PER_POINT

from .clock import now
from .networks import CONDITIONING


def tokens_per_step(config: PointGeneratorConfig) -> int:
    """Tokens that the large transformer takes in at once."""
    return TOKENS_PER_POINT if config.point_head == "depth" else 1


def count_bytes(config: PointGeneratorConfig, context: int, weight: int, key: int) -> float:
    """What a token of one row makes us read, with so many bytes per weight and per key's number.

    Keys and values of one byte have a scale each.
    """
    width, inner, layout = config.hidden_size, config.intermediate_size, config.layout
    size = tokens_per_step(config)
    ranges = [layout.slot_range(slot) for slot in range(TOKENS_PER_POINT)]
    head = (sum(high - low for low, high in ranges) + 1) / TOKENS_PER_POINT
    layers = config.num_hidden_layers * (6 * width * width + 3 * width * inner)
    keys = 2 * config.num_hidden_layers * (context // size + CONDITIONING)
    scales = 4 * config.num_attention_heads if key == 1 else 0
    small = 0.0
    if config.point_head == "depth":
        width2, inner2 = config.depth_hidden_size, config.depth_intermediate_size
        layer = 4 * width2 * width2 + 3 * width2 * inner2
        small = config.depth_num_hidden_layers * layer + width * width2 * (1 + 1 / size)
    return weight * (layers / size + small + head * width) + keys * (key * width + scales) / size


def read_speed(rounds: int = 3) -> float:
    """Bytes per second that the threads can read from memory."""
    array = torch.ones(1 << 27)
    best = float("inf")
    for _ in range(rounds):
        start = now()
        array.sum()
        best = min(best, now() - start)
    return 4 * len(array) / best
