# SPDX-License-Identifier: Apache-2.0
"""The compiled CPU engine with bindings anchored on a head: the reference's tokens."""

import copy

import numpy as np
import pytest
import torch
from engine_agreement import check_threads, count_ties, each_engine
from tiny_generators import WIDE_DEPTH, build_anchored, random_heads

from pointillist_hf import ProceduralHeadRig
from pointillist_hf.decoding.cpu import weights
from pointillist_hf.decoding.cpu.decoder import CompiledDecoder, build_rules
from pointillist_hf.decoding.generation import WEIGHT_FORMATS, choose_engine, generate_points
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.sampling import SeededSampling

BY_FACES = ("faces", "every_face")
each_case = pytest.mark.parametrize(
    ("order", "grammar"),
    [
        *[("byzx", level) for level in ("types", "full", *BY_FACES)],
        *[(order, level) for order in ("xyzb", "yzxb") for level in ("types", "full")],
    ],
)


@pytest.fixture(scope="module")
def model():
    return build_anchored()


@pytest.fixture
def heads():
    """Of three rows, of which two have the same."""
    return random_heads(2)[[0, 1, 1]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 1.7, "min_p": 0.0},
        {"min_points": 12, "max_points": 12},
    ],
)
@each_case
def test_the_same_tokens(order, grammar, options, context, heads):
    model = build_anchored(order)
    options = {"max_points": 30, "grammar": grammar, "face_anchors": heads, **options}
    assert count_ties(model, context, [1, 2, 3], **options) == 0


@pytest.mark.parametrize("grammar", BY_FACES)
@pytest.mark.parametrize("most", [1, 2, 3])
def test_full_faces_are_left(grammar, most, context):
    model = build_anchored(num_faces=5, max_points_per_face=most)
    options = {"max_points": 30, "grammar": grammar, "face_anchors": random_heads(3, 5)}
    assert count_ties(model, context, [1, 2, 3], **options) == 0
    found = generate_points(model, context, seeds=[1, 2, 3], min_points=14, **options)
    for ids, count in zip(found.input_ids, found.num_points, strict=True):
        faces = ids[4 : 4 + 4 * count : 4]
        assert faces.unique(return_counts=True)[1].max() <= most
    assert found.num_points.max() >= 5 or grammar == "faces"


@pytest.mark.parametrize(
    "changes",
    [WIDE_DEPTH, {"anchor_reach": 40}, {"anchor_reach": 1, "num_bins": 64}, {"num_faces": 300}],
    ids=lambda changes: ", ".join(changes)[:20],
)
def test_other_sizes(changes, context):
    """Also more offsets than there are values, and anchors outside the cube."""
    model = build_anchored(**changes)
    heads = 1.3 * random_heads(3, model.config.num_faces)
    options = {"max_points": 20, "min_points": 5, "face_anchors": heads}
    assert count_ties(model, context, [4, 5, 6], **options) == 0


def test_states_are_those_of_the_reference(model, context, heads):
    options = {"face_anchors": heads, "min_points": 40, "max_points": 40, "temperature": 0.0}
    found = generate_points(model, context, engine="compiled", **options)
    exact = copy.deepcopy(model).double()
    expected = exact.model(found.input_ids, context.double(), face_anchors=heads).last_hidden_state
    expected = expected[:, 4:-4].unflatten(1, (40, 4))
    scale = expected.square().mean().sqrt()
    assert (found.token_hidden_states - expected).abs().max() < 1e-5 * scale


def test_heads_matter_and_rows_keep_their_own(model, context, heads):
    options = {"seeds": [1, 2, 3], "min_points": 9, "max_points": 9, "engine": "compiled"}
    found = generate_points(model, context, face_anchors=heads, **options)
    other = generate_points(model, context, face_anchors=heads[[1, 1, 0]], **options)
    for row, is_equal in enumerate((False, True, False)):
        assert torch.equal(found.input_ids[row], other.input_ids[row]) == is_equal


@each_engine
def test_rows_of_a_batch_have_the_bits_that_they_have_alone(model, engine):
    heads, context = random_heads(3)[[0, 0, 1, 1, 1, 1, 2]], torch.randn(7, 5, 24)
    options = {"max_points": 9, "engine": engine}
    batch = generate_points(model, context, seeds=range(7), face_anchors=heads, **options)
    assert len(batch.num_points.unique()) > 2
    for row in range(7):
        own = slice(row, row + 1)
        alone = generate_points(
            model, context[own], seeds=[row], face_anchors=heads[own], **options
        )
        count = int(alone.num_points)
        assert torch.equal(batch.token_hidden_states[row, :count], alone.token_hidden_states[0])


@pytest.mark.parametrize("grammar", ["types", "faces"])
def test_any_number_of_threads_gives_the_same_bits(model, context, heads, grammar):
    grammar = PointGrammar(model.config.layout, level=grammar, min_points=20, max_points=20)
    sampling = SeededSampling([], min_p=0.05)
    rules = build_rules(model.config.layout, grammar, sampling)
    check_threads(model, context, rules=rules, seeds=[1, 2, 3], face_anchors=heads)


@pytest.mark.parametrize(
    ("engine", "least", "most"),
    [("compiled-bfloat16", 1e-8, 1e-4), ("compiled-int8", 1e-6, 1e-3)],
)
def test_rounded_engines_are_near_and_valid(model, context, heads, engine, least, most):
    options = {"min_points": 12, "max_points": 12, "temperature": 0.0, "face_anchors": heads}
    near = generate_points(model, context, engine=engine, **options)
    with torch.no_grad():
        output = model.model(near.input_ids, context, use_cache=False, face_anchors=heads)
    forced = output.last_hidden_state[:, 4:-4].unflatten(1, (12, 4))
    error = (near.token_hidden_states - forced).square().mean() / forced.square().mean()
    assert least < error < most


def rounded(model):
    """The model with weights that bfloat16 holds."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return model


def test_faces_stay_exact_beside_weights_that_bfloat16_holds(model, context, heads, monkeypatch):
    model, options = rounded(model), {"max_points": 9, "face_anchors": heads}
    assert count_ties(model, context, [1, 2, 3], **options) == 0
    halved = generate_points(model, context, engine="compiled", **options)
    assert weights.prepare_weights(model, "exact").matrices.dtype == np.uint16
    monkeypatch.setattr(weights, "_fits_bfloat16", lambda matrix: False)
    whole = generate_points(copy.deepcopy(model), context, engine="compiled", **options)
    assert torch.equal(halved.token_hidden_states, whole.token_hidden_states)


def test_a_bfloat16_model_is_decoded_in_float32(model, context, heads):
    half = copy.deepcopy(model).bfloat16()
    options = {"max_points": 9, "face_anchors": heads}
    found = generate_points(half, context.bfloat16(), **options)
    exact = copy.deepcopy(half).float()
    expected = generate_points(exact, context.bfloat16().float(), engine="reference", **options)
    assert torch.equal(found.input_ids, expected.input_ids)


def test_heads_that_are_alike_are_kept_once(model, context, heads):
    grammar = PointGrammar(model.config.layout, max_points=9)
    rules = build_rules(model.config.layout, grammar, SeededSampling([]))
    decoder = CompiledDecoder(model, context, rules=rules, seeds=[1, 2, 3], face_anchors=heads)
    (faces,) = decoder.faces
    assert len(faces.starts) == 2
    assert faces.heads[1] == faces.heads[2] != faces.heads[0]


def test_the_engine_serves(model):
    assert choose_engine(model, "auto") == "compiled"
    for engine in WEIGHT_FORMATS:
        assert choose_engine(model, engine) == engine
    on_cuda = {"encoder_hidden_states": torch.zeros(1, device="meta")}
    assert choose_engine(model, "auto", on_cuda) == "reference"


@pytest.mark.slow
def test_the_faces_of_the_whole_head():
    rig = ProceduralHeadRig("low")
    sizes = {"num_bins": 512, "num_faces": len(rig.faces), "hidden_size": 128, "anchor_reach": 32}
    model = build_anchored(num_attention_heads=4, sliding_window=256, **sizes)
    heads = rig.face_anchors(torch.randn(4, rig.num_betas))
    context = torch.randn(4, 20, 24)
    for grammar in ("types", *BY_FACES):
        options = {"min_points": 100, "max_points": 100, "grammar": grammar}
        assert count_ties(model, context, range(4), face_anchors=heads, **options) <= 1
