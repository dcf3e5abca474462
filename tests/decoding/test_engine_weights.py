# SPDX-License-Identifier: Apache-2.0
"""Weights of the compiled engine: how they are kept, rounded, and noticed when they change."""

import copy

import numpy as np
import pytest
import torch
from engine_agreement import count_ties

from pointillist_hf.decoding.cpu import weights
from pointillist_hf.decoding.cpu.weights import quantize_rows
from pointillist_hf.decoding.generation import generate_points


def rounded(model):
    """The model with weights that bfloat16 holds."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return model


def test_weights_that_bfloat16_holds_are_read_as_such(model, context, monkeypatch):
    model = rounded(model)
    halved = generate_points(model, context, max_points=9, engine="compiled")
    assert weights.prepare_weights(model, "exact").matrices.dtype == np.uint16
    monkeypatch.setattr(weights, "_fits_bfloat16", lambda matrix: False)
    model = copy.deepcopy(model)
    whole = generate_points(model, context, max_points=9, engine="compiled")
    assert weights.prepare_weights(model, "exact").matrices.dtype == np.float32
    assert torch.equal(halved.token_hidden_states, whole.token_hidden_states)


def test_a_bfloat16_model_is_decoded_in_float32(model, context):
    half = copy.deepcopy(model).bfloat16()
    found = generate_points(half, context.bfloat16(), max_points=9)
    expected = generate_points(
        copy.deepcopy(half).float(),
        context.bfloat16().float(),
        max_points=9,
        engine="reference",
    )
    assert found.token_hidden_states.dtype == torch.bfloat16
    assert torch.equal(found.input_ids, expected.input_ids)


def test_changed_weights_are_noticed(model, context):
    model = copy.deepcopy(model)
    before = generate_points(model, context, max_points=9, engine="compiled")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-1)
    assert count_ties(model, context, [0, 1, 2], max_points=9) == 0
    after = generate_points(model, context, max_points=9, engine="compiled")
    assert not torch.equal(after.token_hidden_states[:, 0], before.token_hidden_states[:, 0])


def test_changes_that_torch_does_not_count_are_noticed(model, context):
    model = copy.deepcopy(model)
    before = weights.prepare_weights(model, "exact")
    assert weights.prepare_weights(model, "exact") is before
    model.model.embed_tokens.weight.data.add_(0.01)
    assert weights.prepare_weights(model, "exact") is not before


def test_rows_of_int8():
    matrix = torch.randn(50, 33) * torch.logspace(-6, 3, 50)[:, None]
    matrix[7] = 0
    numbers, scales = quantize_rows(matrix)
    error = (torch.from_numpy(numbers * scales[:, None]) - matrix).abs()
    assert (error <= torch.from_numpy(scales)[:, None] * 0.5001).all()
    assert abs(numbers).max(1).tolist() == [127] * 7 + [0] + [127] * 42


@pytest.mark.parametrize(
    ("engine", "least", "most"),
    [("compiled-bfloat16", 1e-8, 1e-4), ("compiled-int8", 1e-6, 1e-3)],
)
def test_rounded_engines_are_near_and_valid(model, context, engine, least, most):
    options = {"min_points": 12, "max_points": 12, "temperature": 0.0}
    near = generate_points(model, context, engine=engine, **options)
    with torch.no_grad():
        states = model.model(near.input_ids, context, use_cache=False).last_hidden_state
    forced = states[:, 4:-4].unflatten(1, (12, 4))
    error = (near.token_hidden_states - forced).square().mean() / forced.square().mean()
    assert least < error < most
