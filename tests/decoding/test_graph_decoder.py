# SPDX-License-Identifier: Apache-2.0
"""The step of constant shape, compiled on the CPU or recorded on a GPU."""

import pytest
import torch
from tiny_generators import HEADS, build_generator, each_head

from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.graph_decoder import GraphDecoder
from pointillist_hf.decoding.sampling import SeededSampling


def decode(model, context, recording, *, mask=None, level="types", max_points=9, min_points=1):
    layout = model.config.layout
    grammar = PointGrammar(layout, level=level, min_points=min_points, max_points=max_points)
    streams = [torch.Generator(context.device).manual_seed(i) for i in range(len(context))]
    decoder = GraphDecoder(
        model,
        context,
        mask,
        grammar=grammar,
        sampling=SeededSampling(streams, min_p=0.05),
        recording=recording,
    )
    with torch.no_grad():
        pieces = list(decoder.decode())
    return [torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("level", ["types", "full"])
@each_head
def test_one_graph_gives_the_references_tokens(head, attention, level):
    model = build_generator(attention=attention, **HEADS[head])
    # A window of 16 tokens, clouds of up to 36.
    context = torch.randn(3, 5, 24)
    expected = generate_points(model, context, grammar=level, max_points=9, engine="reference")
    tokens, states = decode(model, context, "eager", level=level)
    for row, count in enumerate(expected.num_points.tolist()):
        ids = expected.input_ids[row, 4 : 4 * (count + 1) + 1]
        assert torch.equal(tokens[row, : 4 * count + 1], ids)
        found = states[row, 4 : 4 * (count + 1)].unflatten(0, (count, 4))
        wanted = expected.token_hidden_states[row, :count]
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    assert (tokens == model.config.eos_token_id).any(1).all()


@each_head
def test_padded_conditioning_is_not_seen(head):
    model, context = build_generator(**HEADS[head]), torch.randn(2, 5, 24)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    options = {"max_points": 6, "encoder_attention_mask": mask}
    expected = generate_points(model, context, engine="reference", **options)
    tokens, _ = decode(model, context, "eager", mask=mask, max_points=6)
    for row, count in enumerate(expected.num_points.tolist()):
        assert torch.equal(tokens[row, : 4 * count], expected.input_ids[row, 4 : 4 * (count + 1)])


@pytest.mark.gpu
@pytest.mark.parametrize("recording", ["cuda-graph", "inductor"])
@each_head
def test_recordings_on_a_gpu(head, recording):
    model = build_generator(**HEADS[head]).cuda()
    context = torch.randn(2, 5, 24, device="cuda")
    options = {"min_points": 20, "max_points": 20}
    expected = generate_points(model, context, engine="reference", **options)
    tokens, states = decode(model, context, recording, **options)
    assert torch.equal(tokens[:, :80], expected.input_ids[:, 4:84])
    found = states[:, 4:84].unflatten(1, (20, 4))
    torch.testing.assert_close(found, expected.token_hidden_states, atol=1e-4, rtol=1e-3)
    compiled = generate_points(model, context, engine="compiled", **options)
    assert torch.equal(compiled.input_ids, expected.input_ids)
