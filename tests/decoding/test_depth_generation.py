# SPDX-License-Identifier: Apache-2.0
"""Clouds of generators with a depth head, by the reference engine and by `generate`."""

import pytest
import torch
from tiny_generators import CONTEXT, NARROW_DEPTH, build_generator, each_head, each_order

from pointillist_hf import PointGeneratorConfig, PointGeneratorForCausalLM
from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.sampling import SeededSampling
from pointillist_hf.training.windows import cut_window


@pytest.fixture
def context():
    return torch.randn(2, 5, CONTEXT)


@pytest.fixture(scope="module")
def generator():
    return build_generator(**NARROW_DEPTH)


def test_layers_run_once_per_point(generator, context):
    ran, projected = [], []
    layer = generator.model.layers[0]
    handles = [
        layer.cross_attn.q_proj.register_forward_hook(lambda *a: ran.append(a[2].shape[1])),
        layer.cross_attn.k_proj.register_forward_hook(lambda *a: projected.append(1)),
    ]
    generate_points(generator, context, min_points=6, max_points=6, engine="reference")
    for handle in handles:
        handle.remove()
    assert ran == [1] * 7  # the start and six points
    assert len(projected) == 1


@each_order
@pytest.mark.parametrize("grammar", ["types", "full"])
def test_generated_clouds_and_their_states(order, grammar):
    model = build_generator(token_order=order, **NARROW_DEPTH)
    context = torch.randn(6, 5, CONTEXT)
    output = generate_points(
        model, context, grammar=grammar, min_points=2, max_points=9, engine="reference"
    )
    layout, most = model.config.layout, int(output.num_points.max())
    assert output.token_hidden_states.shape == (6, most, 4, 32)
    assert len(output.num_points.unique()) > 1
    checker = PointGrammar(layout, level=grammar, min_points=2, max_points=9)
    with torch.no_grad():
        states = model.model(output.input_ids, context, use_cache=False).last_hidden_state
    for row, count in enumerate(output.num_points.tolist()):
        ids = output.input_ids[row]
        for length in range(4, 4 * (count + 1) + 1):
            assert checker.allowed(ids[None, :length])[0, ids[length]]
        expected = states[row, 4 : 4 * (count + 1)].unflatten(0, (count, 4))
        found = output.token_hidden_states[row, :count]
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_generate_draws_what_a_loop_without_cache_draws(generator, context):
    output = generate_points(generator, context, seeds=[5, 6], max_points=8, engine="reference")
    layout = generator.config.layout
    grammar = PointGrammar(layout, max_points=8)
    sampling = SeededSampling([torch.Generator().manual_seed(s) for s in (5, 6)], min_p=0.05)
    ids = torch.full((2, 4), layout.bos_token_id)
    for _ in range(output.input_ids.shape[1] - 7):
        scores = generator(ids, context, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, sampling(ids, grammar(ids, scores)).argmax(-1)[:, None]], dim=1)
    for row, count in enumerate(output.num_points.tolist()):
        end = 4 * (count + 1) + 1
        assert torch.equal(output.input_ids[row, :end], ids[row, :end])


def test_plain_generate_works_with_and_without_cache(generator, context):
    prompt = torch.full((2, 4), generator.config.bos_token_id)
    with_cache, without = (
        generator.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            encoder_hidden_states=context,
            do_sample=False,
            use_cache=use_cache,
            max_new_tokens=21,
        )
        for use_cache in (True, False)
    )
    assert torch.equal(with_cache, without)
    sampled = generator.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        encoder_hidden_states=context,
        do_sample=True,
        num_return_sequences=3,
        max_new_tokens=21,
    )
    assert len(sampled) == 6


@each_head
def test_it_learns_one_cloud_by_heart(head, tiny_tokenizer, tiny_points):
    layers = {"num_hidden_layers": 1, "depth_num_hidden_layers": 1, "point_head": "depth"}
    config = PointGeneratorConfig(
        num_bins=64,
        num_faces=tiny_tokenizer.num_faces,
        token_order="yzxb",
        hidden_size=48,
        num_attention_heads=2,
        intermediate_size=96,
        cross_attention_size=CONTEXT,
        loss_head="typed",
        **(layers if head == "depth" else {"num_hidden_layers": 2}),
    )
    model, context = PointGeneratorForCausalLM(config), torch.randn(1, 5, CONTEXT)
    ids = tiny_tokenizer.encode_points(tiny_points)
    ids, labels = cut_window(ids, 0, len(ids), tiny_tokenizer.layout)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=150)
    for _ in range(150):
        loss = model(ids[None], context, labels=labels[None], use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert loss < 0.05  # nats per token
    again = generate_points(model.eval(), context, temperature=0, grammar="full", max_points=60)
    assert torch.equal(again.input_ids[0], ids)
