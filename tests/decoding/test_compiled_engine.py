# SPDX-License-Identifier: Apache-2.0
"""The compiled CPU engine beside the reference: the same tokens, whatever runs them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine_agreement import count_ties, each_engine
from numba import njit
from tiny_generators import HEADS, build_generator, each_head, each_order

from pointillist_hf import PointTokenizer
from pointillist_hf.decoding.cpu.decoder import CompiledDecoder, build_rules, seed_twister
from pointillist_hf.decoding.cpu.sampling import Draws, find_words, uniform
from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.sampling import SeededSampling


@njit
def draw_uniform(draws, row, token):
    """Parts of kernels have no door to Python of their own."""
    return uniform(draws.twister, find_words(draws, row, token)[0])


@pytest.mark.parametrize("grammar", ["types", "full"])
@each_order
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.6},
        {"temperature": 1.7, "min_p": 0.0},
        {"min_p": 0.3},
        {"min_points": 12, "max_points": 12},
    ],
)
@each_head
def test_the_same_tokens(head, order, grammar, options, context):
    model = build_generator(token_order=order, **HEADS[head])
    options = {"max_points": 14, "grammar": grammar, **options}
    assert count_ties(model, context, [1, 2, 3], **options) == 0


@pytest.mark.slow
@each_order
@each_head
def test_the_same_tokens_at_the_size_of_the_paper_s_vocabulary(head, order):
    sizes = {"num_bins": 1024, "num_faces": 10144, "hidden_size": 128, "num_attention_heads": 4}
    model = build_generator(
        token_order=order, sliding_window=256, intermediate_size=352, **sizes, **HEADS[head]
    )
    context = torch.randn(8, 20, 24)
    for grammar in ("types", "full"):
        options = {"min_points": 100, "max_points": 100, "grammar": grammar}
        assert count_ties(model, context, range(8), **options) <= 1


@pytest.mark.parametrize("num_heads", [1, 8])
@pytest.mark.parametrize("size", [48, 80])
@each_head
def test_sizes_that_fill_no_vector(head, size, num_heads, context):
    sizes = {"hidden_size": size, "num_attention_heads": num_heads, "intermediate_size": 72}
    sizes |= HEADS[head]
    if head == "depth":
        sizes |= {"depth_hidden_size": 40, "depth_num_attention_heads": num_heads}
    model = build_generator(**sizes, num_hidden_layers=3)
    assert count_ties(model, context, [1, 2, 3], max_points=8) == 0


@pytest.mark.parametrize(("head", "window", "points"), [("flat", 600, 170), ("depth", 1200, 310)])
def test_windows_longer_than_a_chunk(head, window, points, context):
    model = build_generator(sliding_window=window, num_hidden_layers=1, **HEADS[head])
    assert count_ties(model, context[:1], [1], min_points=points, max_points=points) == 0


def test_padded_conditioning_is_not_seen(model, context):
    mask = torch.tensor([[1] * 5, [1] * 3 + [0] * 2, [0, 1, 0, 1, 1]])
    options = {"seeds": [1, 2, 3], "encoder_attention_mask": mask, "max_points": 9}
    expected = generate_points(model, context, engine="reference", **options)
    found = generate_points(model, context, engine="compiled", **options)
    assert torch.equal(found.input_ids, expected.input_ids)
    alone = generate_points(model, context[2:, [1, 3, 4]], seeds=[3], max_points=9)
    count = 4 * int(alone.num_points)
    assert torch.equal(alone.input_ids[0, :count], found.input_ids[2, :count])


@each_engine
def test_rows_of_a_batch_have_the_bits_that_they_have_alone(model, engine):
    context = torch.randn(7, 5, 24)  # by fours, by twos, and alone
    options = {"max_points": 9, "engine": engine}
    batch = generate_points(model, context, seeds=range(7), **options)
    assert len(batch.num_points.unique()) > 2
    for row in range(7):
        alone = generate_points(model, context[row : row + 1], seeds=[row], **options)
        count = int(alone.num_points)
        assert torch.equal(batch.token_hidden_states[row, :count], alone.token_hidden_states[0])


def test_return_sequences_are_rows(model, context):
    for engine in ("reference", "compiled"):
        several = generate_points(
            model, context[:2], num_return_sequences=2, max_points=9, engine=engine
        )
        rows = generate_points(model, context[[0, 0, 1, 1]], max_points=9, engine=engine)
        assert torch.equal(several.input_ids, rows.input_ids)


def test_nothing_left_of_the_conditioning(model, context):
    """Of all rows, and of one beside others."""
    for kept in ([0, 0, 0], [5, 0, 3]):
        mask = torch.arange(5) < torch.tensor(kept)[:, None]
        options = {"encoder_attention_mask": mask.long(), "max_points": 9}
        expected = generate_points(model, context, engine="reference", **options)
        found = generate_points(model, context, engine="compiled", **options)
        assert torch.equal(found.input_ids, expected.input_ids)


def test_more_faces_than_the_twister_has_words():
    model, context = build_generator(num_faces=20_908), torch.randn(2, 5, 24)
    options = {"max_points": 12, "seeds": [1, 2]}
    expected = generate_points(model, context, engine="reference", **options)
    found = generate_points(model, context, engine="compiled", **options)
    assert (expected.input_ids > 18_000).any()
    assert torch.equal(found.input_ids, expected.input_ids)


def test_equal_conditioning_is_kept_once(model, context):
    contexts = context[[2, 0, 2, 1]]
    grammar = PointGrammar(model.config.layout, max_points=9)
    rules = build_rules(model.config.layout, grammar, SeededSampling([]))
    generation = CompiledDecoder(model, contexts, rules=rules, seeds=[1, 2, 3, 4])
    assert generation.memory.cross.rows.tolist() == [0, 1, 0, 2]
    assert generation.memory.cross.num_rows == 3
    found = generate_points(model, contexts, seeds=[1, 2, 3, 4], max_points=9)
    for row, seed in enumerate([1, 2, 3, 4]):
        alone = generate_points(model, contexts[[row]], seeds=[seed], max_points=9)
        count = int(alone.num_points)
        assert torch.equal(found.token_hidden_states[row, :count], alone.token_hidden_states[0])


@pytest.mark.parametrize("vocabulary", [39, 624, 1001])
def test_the_noise_is_that_of_torch(vocabulary):
    draws = Draws(
        marks=None,
        points=None,
        twister=np.zeros(2 * 624, np.uint32),
        words=np.zeros((2, 2), np.int64),
        on_face=None,
    )
    draws.twister[:624], draws.twister[624:] = seed_twister(5), seed_twister(2**40 + 3)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 2**40 + 3)]
    for _ in range(4):
        for row, generator in enumerate(generators):
            expected = torch.rand(vocabulary, dtype=torch.float64, generator=generator)
            asked = range(row, vocabulary, 7)
            found = [draw_uniform(draws, row, token) for token in asked]
            assert found == expected[asked].tolist()
            draws.words[row, 0] += 2 * vocabulary


@pytest.mark.slow
def test_kernels_from_the_cache_have_the_bits_of_fresh_ones(tmp_path):
    script = (
        "import hashlib\n"
        "import torch\n"
        "from tiny_generators import HEADS, build_generator\n"
        "from pointillist_hf.decoding.generation import WEIGHT_FORMATS, generate_points\n"
        "sizes = {'hidden_size': 192, 'num_attention_heads': 3, 'intermediate_size': 512}\n"
        "model = build_generator(**sizes, **HEADS['depth'])\n"
        "for engine in WEIGHT_FORMATS:\n"
        "    options = {'min_points': 90, 'max_points': 90, 'engine': engine}\n"
        "    cloud = generate_points(model, torch.randn(3, 300, 24), **options)\n"
        "    states = cloud.token_hidden_states.numpy().tobytes()\n"
        "    print(hashlib.sha256(states).hexdigest())\n"
    )
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    found = [
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
        for _ in range(2)
    ]
    assert found[0].stdout.count(b"\n") == 3, found[0].stderr
    assert found[0].stdout == found[1].stdout


@pytest.mark.parametrize("grammar", ["types", "full"])
@each_order
def test_a_thousand_clouds_of_an_untrained_model_are_valid(order, grammar):
    tokenizer = PointTokenizer(num_bins=16, num_faces=20, token_order=order)
    model = build_generator(token_order=order, initializer_range=0.05)
    context = torch.randn(1000, 2, 24)
    output = generate_points(
        model, context, grammar=grammar, min_points=1, max_points=16, min_p=0.0
    )
    assert len(output.num_points.unique()) > 8
    for ids, count in zip(output.input_ids, output.num_points.tolist(), strict=True):
        points = tokenizer.decode_points(ids)  # refuses a token in a wrong slot
        assert len(points) == count
        if grammar == "full":
            assert torch.equal(tokenizer.encode_points(points), ids[: 4 * (count + 2)])
