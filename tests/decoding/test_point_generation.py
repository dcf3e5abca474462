# SPDX-License-Identifier: Apache-2.0
"""Whole clouds by `generate_points`: their form, their seeds, their ends."""

import copy

import pytest
import torch
from tiny_generators import CONTEXT, build_generator, each_order

from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.decoding.grammar import PointGrammar


@pytest.fixture
def context():
    return torch.randn(2, 5, CONTEXT)


@pytest.fixture(scope="module")
def generator():
    return build_generator()


def test_generated_states_are_the_teacher_forced_ones(generator, context):
    output = generate_points(generator, context, seeds=[3, 4], max_points=12)
    with torch.no_grad():
        states = generator.model(output.input_ids, context, use_cache=False).last_hidden_state
    for row, count in enumerate(output.num_points.tolist()):
        expected = states[row, 4 : 4 * (count + 1)].unflatten(0, (count, 4))
        found = output.token_hidden_states[row, :count]
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("grammar", ["types", "full"])
@each_order
def test_shapes_and_form_of_generated_clouds(order, grammar):
    model = build_generator(token_order=order)
    context = torch.randn(6, 5, CONTEXT)
    output = generate_points(model, context, grammar=grammar, min_points=2, max_points=9)
    layout, most = model.config.layout, int(output.num_points.max())
    assert output.input_ids.shape == (6, 4 * (most + 2))
    assert output.token_hidden_states.shape == (6, most, 4, 32)
    assert output.num_points.min() >= 2
    assert most <= 9
    assert len(output.num_points.unique()) > 1  # rows end at different times
    checker = PointGrammar(layout, level=grammar, min_points=2, max_points=9)
    for row, count in enumerate(output.num_points.tolist()):
        ids = output.input_ids[row]
        body = 4 * (count + 1)
        assert (ids[:4] == layout.bos_token_id).all()
        assert (ids[body : body + 4] == layout.eos_token_id).all()
        assert (ids[body + 4 :] == layout.pad_token_id).all()
        for length in range(4, body + 1):
            assert checker.allowed(ids[None, :length])[0, ids[length]]
        assert output.token_hidden_states[row, :count].abs().sum((1, 2)).min() > 0
        assert output.token_hidden_states[row, count:].abs().sum() == 0


def test_rows_of_a_batch_equal_single_generations(generator):
    context = torch.randn(4, 5, CONTEXT)
    batch = generate_points(generator, context, seeds=[7, 8, 9, 7], max_points=9)
    for row, seed in enumerate([7, 8, 9, 7]):
        alone = generate_points(generator, context[row : row + 1], seeds=[seed], max_points=9)
        count = int(alone.num_points)
        assert count == int(batch.num_points[row])
        length = alone.input_ids.shape[1]
        assert torch.equal(batch.input_ids[row, :length], alone.input_ids[0])
        states = batch.token_hidden_states[row, :count]
        torch.testing.assert_close(states, alone.token_hidden_states[0], atol=1e-5, rtol=1e-4)


def test_seeds_decide(generator, context):
    def generate(seeds):
        return generate_points(generator, context, seeds=seeds, max_points=9).input_ids

    torch.manual_seed(5)
    first = generate([1, 2])
    torch.manual_seed(6)  # the global random state has no say
    assert torch.equal(generate([1, 2]), first)
    other = generate([3, 2])
    assert not torch.equal(other[0, :12], first[0, :12])
    assert torch.equal(other[1, :12], first[1, :12])


def test_zero_temperature_needs_no_seed(generator, context):
    first, second = (
        generate_points(generator, context, seeds=seeds, temperature=0, max_points=5).input_ids
        for seeds in ([1, 2], [3, 4])
    )
    assert torch.equal(first, second)


def test_exactly_max_points(generator, context):
    output = generate_points(generator, context, min_points=5, max_points=5)
    assert output.num_points.tolist() == [5, 5]


def test_clouds_may_be_empty_if_asked_for(generator, context):
    model = copy.deepcopy(generator)
    end = model.config.eos_token_id
    with torch.no_grad():
        states = model.model(torch.full((2, 4), model.config.bos_token_id), context)
        model.lm_head.weight[end] = 100 * states.last_hidden_state[:, -1].mean(0)
    output = generate_points(model, context, min_points=0, max_points=3)
    assert output.num_points.tolist() == [0, 0]
    assert output.token_hidden_states.shape == (2, 0, 4, 32)


def test_wrong_numbers_of_seeds_are_refused(generator, context):
    with pytest.raises(ValueError, match="`seeds` must hold one seed per cloud, got 3 for 2"):
        generate_points(generator, context, seeds=[1, 2, 3])
