# SPDX-License-Identifier: Apache-2.0
"""The cache of the sliding window."""

import gc
import resource

import pytest
import torch
from tiny_generators import WINDOW, build_generator, feed
from transformers import DynamicCache
from transformers.cache_utils import EncoderDecoderCache

from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.models.ring_cache import RingCache


# The eager softmax works in float32.
@pytest.mark.parametrize(("attention", "atol"), [("sdpa", 1e-10), ("eager", 1e-5)])
@pytest.mark.parametrize(
    "sizes", [[1] * 60, [4] + [1] * 56, [15, 1, 1, 17, 26], [16, 16, 28], [40] + [1] * 20, [60]]
)
def test_the_ring_equals_the_windowed_forward(sizes, attention, atol):
    model = build_generator(attention=attention).double()
    ids, context = torch.randint(39, (2, 60)), torch.randn(2, 5, 24).double()
    with torch.no_grad():
        expected = model.model(ids, context, use_cache=False).last_hidden_state
    found, cache = feed(model, ids, context, sizes, RingCache(model.config))
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)
    assert cache.get_seq_length() == 60
    assert all(layer.keys.shape[2] == WINDOW for layer in cache.self_attention_cache.layers)


@pytest.mark.parametrize("sizes", [[1] * 40, [3, 13, 1, 1, 1, 1, 20]])
def test_padded_prompts(sizes):
    model = build_generator().double()
    ids, context = torch.randint(39, (2, 40)), torch.randn(2, 5, 24).double()
    mask = torch.ones(2, 40).long()
    mask[1, :9] = 0
    found, _ = feed(model, ids, context, sizes, RingCache(model.config), mask)
    expected, _ = feed(model, ids, context, sizes, DynamicCache(config=model.config), mask)
    real = mask.bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-10, rtol=0)


def test_steps_leave_keys_where_they_are():
    model = build_generator()
    ids, context = torch.randint(39, (1, 50)), torch.randn(1, 5, 24)
    _, cache = feed(model, ids[:, :20], context, [20], RingCache(model.config))
    layer = cache.self_attention_cache.layers[1]
    place, before = layer.keys.data_ptr(), layer.keys.clone()
    _, cache = feed(model, ids[:, 20:21], context, [1], cache)
    assert layer.keys.data_ptr() == place
    changed = (layer.keys != before).any(-1)[0, 0].nonzero().flatten()
    assert changed.tolist() == [20 % WINDOW]


def test_conditioning_is_projected_once_per_generation():
    model = build_generator()
    calls = []
    for layer in model.model.layers:
        for projection in (layer.cross_attn.k_proj, layer.cross_attn.v_proj):
            projection.register_forward_hook(lambda *args: calls.append(1))
    context = torch.randn(2, 5, 24)
    generate_points(model, context, min_points=12, max_points=12, engine="reference")
    assert len(calls) == 2 * 2


def test_generate_takes_it_and_goes_on_from_it():
    model = build_generator()
    prompt, context = torch.randint(39, (2, 4)), torch.randn(2, 5, 24)
    options = {"encoder_hidden_states": context, "do_sample": False, "eos_token_id": None}
    expected = model.generate(prompt, max_new_tokens=40, **options)
    cache = EncoderDecoderCache(RingCache(model.config), DynamicCache())
    first = model.generate(prompt, max_new_tokens=10, past_key_values=cache, **options)
    assert torch.equal(first, expected[:, :14])
    rest = model.generate(first, max_new_tokens=30, past_key_values=cache, **options)
    assert torch.equal(rest, expected)


def test_a_reset_ring_is_empty():
    model = build_generator()
    ids, context = torch.randint(39, (1, 30)), torch.randn(1, 5, 24)
    first, cache = feed(model, ids, context, [1] * 30, RingCache(model.config))
    cache.reset()
    again, _ = feed(model, ids, context, [1] * 30, cache)
    torch.testing.assert_close(again, first)


@pytest.mark.slow
def test_memory_is_flat_over_100000_tokens():
    model = build_generator(num_hidden_layers=1, sliding_window=256)
    context = torch.randn(1, 5, 24)
    cache, peaks = RingCache(model.config), []
    for _ in range(10):
        ids = torch.randint(39, (1, 10_000))
        _, cache = feed(model, ids, context, [1] * 10_000, cache)
        gc.collect()
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert cache.get_seq_length() == 100_000
    assert peaks[-1] - peaks[1] < 4 * 1024  # kibibytes; copying the ring once a token takes more
