# SPDX-License-Identifier: Apache-2.0
"""The paper's run on paper: weights as the network has them, hours as the page says them."""

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pointillist_hf.models.configuration_point_generator import PointGeneratorConfig
from pointillist_hf.models.modeling_point_generator import PointGeneratorForCausalLM
from pointillist_hf.training.budget import (
    NUM_CONTEXT,
    PASSES,
    count_weights,
    estimate_generator,
    operations_per_token,
)

PAPER = {"num_bins": 1024, "num_faces": 10144, "cross_attention_size": 1024}
PAGE = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True, "cross_attention_size": 64}])
def test_weights_are_those_of_the_network(changes):
    config = PointGeneratorConfig(**{**PAPER, "num_hidden_layers": 2, **changes})
    with torch.device("meta"):
        network = PointGeneratorForCausalLM(config)
    assert count_weights(config) == sum(weight.numel() for weight in network.parameters())


def test_operations_are_those_that_torch_counts():
    config = PointGeneratorConfig(
        num_bins=64, num_faces=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, sliding_window=400, cross_attention_size=32,
    )  # fmt: skip
    network = PointGeneratorForCausalLM(config).eval()
    inputs = {
        "input_ids": torch.full((1, 400), 3),
        "encoder_hidden_states": torch.zeros(1, NUM_CONTEXT, 32),
    }
    # Attention as products of matrices, which the counter knows on every device.
    math = sdpa_kernel(SDPBackend.MATH)
    with math, FlopCounterMode(display=False) as counter, torch.no_grad():
        network(**inputs, use_cache=False)
    head = 2 * config.hidden_size * config.layout.vocab_size
    forward = (operations_per_token(config) - 3 * head) / PASSES + head
    # Where the mask is not used to save work, a token looks at its whole row.
    masked = 2 * 2 * config.hidden_size * 200 * config.num_hidden_layers
    counted = counter.get_total_flops() / 400
    assert min(abs(counted - forward), abs(counted - forward - masked)) < 0.01 * forward


def test_more_gpus_take_less_time_and_less_memory():
    config = PointGeneratorConfig(**PAPER)
    few, many = (estimate_generator(config, "H100", number) for number in (8, 16))
    assert few.hours == pytest.approx(2 * many.hours)
    assert few.weight_bytes == 2 * many.weight_bytes
    assert few.tokens_per_second == many.tokens_per_second
    whole = estimate_generator(config, "H100", 8, is_sharded=False)
    assert whole.weight_bytes == 16 * count_weights(config)


def test_the_page_says_what_comes_out():
    page, config = PAGE.read_text(encoding="utf-8"), PointGeneratorConfig(**PAPER)
    for gpu in ("H100", "A100"):
        for number in (8, 16):
            budget = estimate_generator(config, gpu, number)
            row = f"| {number} {gpu} | {budget.hours:.0f} | {budget.tokens_per_second:,.0f} |"
            assert row in page, row


def test_an_unknown_gpu_is_refused():
    with pytest.raises(ValueError, match="`gpu` must be one of A100, H100, H20"):
        estimate_generator(PointGeneratorConfig(**PAPER), "V100", 8)
