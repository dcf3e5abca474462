# SPDX-License-Identifier: Apache-2.0
"""Bindings that are known by where their faces lie on the tracked head."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_generators import (
    ANCHORED,
    CONTEXT,
    NARROW_DEPTH,
    build_anchored,
    build_config,
    build_generator,
    label_tokens,
    random_heads,
    random_ids,
)
from torch.nn.functional import cross_entropy, rms_norm, silu

from pointillist_hf import PointGeneratorForCausalLM
from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.models.attention_blocks import fourier_features

each_anchored_order = pytest.mark.parametrize("order", ["byzx", "yzxb"])
PORTIONS = [[1] * 48, [4] + [1] * 44, [16, 16, 16], [20, 7, 1, 20], [2, 46]]


@pytest.fixture
def context():
    return torch.randn(2, 5, CONTEXT).double()


@pytest.fixture
def heads():
    """Faces all over the cube of two people. [2, 20, 6]"""
    return random_heads().double()


def embed_by_loop(model, heads):
    """Embeddings [B, F, D] and places in bins [B, F, 3], a face at a time."""
    anchors, config = model.model.face_anchors, model.config
    rows = model.model.embed_tokens.weight[config.num_bins : config.num_bins + config.num_faces]
    embeddings, places = [], []
    for head in heads:
        for face, anchor in enumerate(head):
            coords = (anchor[:3] - anchor.new_tensor(config.cube_center)) / config.cube_half_extent
            waves = fourier_features(coords, anchors.num_frequencies, base=torch.pi / 2)
            hidden = silu(anchors.hidden_proj(torch.cat([waves, anchor[3:]])))
            mixed = anchors.out_proj(hidden) + rows[face]
            unit = rms_norm(mixed, mixed.shape, anchors.norm.weight, config.rms_norm_eps)
            embeddings.append(anchors.scale * unit)
            places.append((coords + 1) / 2 * config.num_bins)
    return torch.stack(embeddings).view(*heads.shape[:2], -1), torch.stack(places).view(2, 20, 3)


def score_by_loop(model, state, slot, binding, embeddings, places):
    """Scores of a slot's tokens by their ids, one at a time, for one head."""
    config, anchors = model.config, model.model.face_anchors
    layout, axis = config.layout, config.token_order[slot]
    low, high = layout.slot_range(slot)
    scores = {}
    for value, token in enumerate(range(low, high)):
        row = embeddings[value] if axis == "b" else model.lm_head.weight[token]
        scores[token] = state @ row
        if not anchors.is_first:
            continue
        anchor = binding if axis == "b" else int(places[max(binding, 0), "xyz".index(axis)].floor())
        table = anchors.slot_logits[slot]
        numbers = table.weight @ state + table.bias
        offset = value - anchor
        if abs(offset) <= table.reach:
            scores[token] = scores[token] + numbers[offset + table.reach]
        elif table.has_ends:
            scores[token] = scores[token] + numbers[-2 if offset < 0 else -1]
    if slot == 0:
        end = layout.eos_token_id
        scores[end] = state @ model.lm_head.weight[end]
    return scores


@each_anchored_order
@torch.no_grad()
def test_scores_are_those_of_a_plain_loop(order, context, heads):
    model = build_anchored(order).double()
    ids = random_ids(model.config, num_points=4)
    output = model.model(ids, context, use_cache=False, face_anchors=heads)
    logits = model(ids, context, use_cache=False, face_anchors=heads).logits
    embeddings, places = embed_by_loop(model, heads)
    slot_of_b = order.index("b")
    for row in range(2):
        for t in range(ids.shape[1]):
            binding = int(ids[row, t - t % 4 + slot_of_b]) - model.config.num_bins
            binding = binding if binding < 20 else -1
            state = output.last_hidden_state[row, t]
            scores = score_by_loop(model, state, (t + 1) % 4, binding, embeddings[row], places[row])
            found = logits[row, t]
            expected = torch.full_like(found, torch.finfo(found.dtype).min)
            for token, score in scores.items():
                expected[token] = score
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@each_anchored_order
@pytest.mark.parametrize("sizes", PORTIONS)
@torch.no_grad()
def test_incremental_equals_the_full_forward_beyond_the_window(order, sizes, context, heads):
    model = build_anchored(order).double()
    ids = random_ids(model.config)
    expected = model(ids, context, use_cache=False, face_anchors=heads).logits
    cache, found, start = None, [], 0
    for size in sizes:
        part = ids[:, start : start + size]
        options = {"past_key_values": cache, "use_cache": True, "face_anchors": heads}
        output = model(part, context, **options)
        cache, start = output.past_key_values, start + size
        found.append(output.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-10, rtol=0)


@each_anchored_order
def test_the_loss_is_the_masked_softmax(order, context, heads):
    model = build_anchored(order).double()
    ids = random_ids(model.config, num_points=6)
    labels = label_tokens(ids, model.config.layout)
    options = {"use_cache": False, "face_anchors": heads}
    loss = model(ids, context, labels=labels, **options).loss
    logits = model(ids, context, **options).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(loss, expected)
    last = model(ids, context, logits_to_keep=3, **options).logits
    torch.testing.assert_close(last, logits[:, -3:])


@each_anchored_order
@pytest.mark.parametrize("level", ["types", "full"])
@torch.no_grad()
def test_generation_is_the_argmax_of_the_whole_forward(order, level, context, heads):
    model = build_anchored(order).double()
    options = {"temperature": 0, "grammar": level, "min_points": 9, "max_points": 9}
    output = generate_points(model, context, face_anchors=heads, **options)
    ids = output.input_ids
    whole = model(ids, context, use_cache=False, face_anchors=heads)
    rules = PointGrammar(model.config.layout, level=level, min_points=9, max_points=9)
    for length in range(4, 41):
        scores = rules(ids[:, :length], whole.logits[:, length - 1])
        assert torch.equal(scores.argmax(-1), ids[:, length])
    states = model.model(ids, context, use_cache=False, face_anchors=heads).last_hidden_state
    found = output.token_hidden_states.flatten(1, 2)
    torch.testing.assert_close(found, states[:, 4:40], atol=1e-10, rtol=0)
    alone = generate_points(model, context[1:], face_anchors=heads[1:], seeds=[1], **options)
    assert torch.equal(alone.input_ids[0], ids[1])


@torch.no_grad()
def test_another_head_is_another_cloud(context, heads):
    model = build_anchored().double()
    ids = random_ids(model.config)
    first, second = (
        model(ids, context, use_cache=False, face_anchors=h).logits for h in (heads, heads.flip(0))
    )
    # Every score of a token that the slot may hold, but for the ends, says so.
    layout = model.config.layout
    allowed = first > -1e30
    allowed[..., layout.eos_token_id] = False
    assert ((first - second).abs() > 1e-9)[allowed].float().mean() > 0.99
    same = model(ids, context, use_cache=False, face_anchors=heads.clone()).logits
    assert torch.equal(first, same)


@torch.no_grad()
def test_a_head_that_moves_takes_its_points_along(context):
    """Scores near the anchor move with it; only their own table is asked."""
    model = build_anchored(num_bins=64).double()
    model.lm_head.weight.zero_()
    heads = torch.zeros(2, 20, 6).double()
    heads[..., :3] = torch.tensor([0.0, -0.03, -0.04])
    bin_size = 0.6 / 64
    heads[1, :, 1] += 5 * bin_size
    states = torch.randn(1, 1, 32).double().expand(2, -1, -1)
    anchors, layout = model.model.face_anchors, model.config.layout
    faces = model.model.embed_faces(heads)
    slot = layout.slot_of("y")
    bindings = torch.zeros(2, 1).long()
    still, moved = anchors.score(states, slot, model.lm_head.weight, faces, bindings)
    torch.testing.assert_close(moved[:, 5:], still[:, :-5])


def test_gradients_reach_all_that_is_learned_of_faces(context, heads):
    model = build_anchored().double()
    ids = random_ids(model.config)
    labels = label_tokens(ids, model.config.layout)
    model(ids, context, labels=labels, use_cache=False, face_anchors=heads).loss.backward()
    for name, parameter in model.model.face_anchors.named_parameters():
        assert parameter.grad.abs().max() > 1e-9, name
    layout = model.config.layout
    rows = model.model.embed_tokens.weight.grad[layout.binding_offset : layout.bos_token_id]
    assert (rows.abs().amax(1) > 0).all()


@each_anchored_order
@torch.no_grad()
def test_what_is_saved_is_what_is_loaded(order, context, heads, tmp_path):
    model = build_anchored(order, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    loaded = PointGeneratorForCausalLM.from_pretrained(tmp_path)
    ids = random_ids(model.config)
    first, second = (
        m(ids, context.float(), use_cache=False, face_anchors=heads.float()).logits
        for m in (model, loaded)
    )
    assert torch.equal(first, second)
    assert loaded.config.binding_head == "anchored"
    assert loaded.config.cube_center == [0.0, -0.03, -0.04]


def test_offsets_say_nothing_before_training():
    model = build_generator(token_order="byzx", **NARROW_DEPTH, **ANCHORED)
    anchors = model.model.face_anchors
    for table in anchors.slot_logits:
        assert not table.weight.any()
    assert anchors.scale == model.config.initializer_range


@torch.no_grad()
def test_mixed_precision_leaves_places_exact(heads):
    model = build_anchored(num_bins=1024, num_faces=20)
    places = model.model.embed_faces(heads.float()).places
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.model.embed_faces(heads.float()).places, places)
    half = build_anchored(num_bins=1024, num_faces=20).bfloat16()
    assert torch.equal(half.model.embed_faces(heads.float()).places, places)


@torch.no_grad()
def test_anchors_of_a_rig_are_centres_and_normals_whatever_the_precision(tiny_rig):
    betas = torch.randn(2, tiny_rig.num_betas)
    anchors = tiny_rig.face_anchors(betas)
    assert anchors.shape == (2, tiny_rig.num_faces, 6)
    vertices = tiny_rig.canonical_vertices(betas)
    for face in (0, 100, tiny_rig.num_faces - 1):
        a, b, c = vertices[1, tiny_rig.faces[face]]
        normal = torch.linalg.cross(b - a, c - a)
        torch.testing.assert_close(anchors[1, face, :3], (a + b + c) / 3)
        torch.testing.assert_close(anchors[1, face, 3:], normal / normal.norm())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tiny_rig.face_anchors(betas), anchors)


def test_heads_are_asked_for_and_not_taken_in_vain(context, heads):
    model, free = build_anchored().double(), build_generator(**NARROW_DEPTH).double()
    ids = random_ids(model.config)
    with pytest.raises(ValueError, match=r"`face_anchors` must have shape \(B, 20, 6\).*got None"):
        model(ids, context)
    with pytest.raises(ValueError, match=r"`face_anchors` must have shape .* got \(2, 19, 6\)"):
        model(ids, context, face_anchors=heads[:, :19])
    with pytest.raises(ValueError, match="`face_anchors` must be None with `binding_head='free'`"):
        free(ids, context, face_anchors=heads)
    with pytest.raises(
        ValueError, match=r"`face_anchors` must be given .* got none for 'anchored'"
    ):
        generate_points(model, context, max_points=3)
    with pytest.raises(ValueError, match=r"`face_anchors` must be given .* got some for 'free'"):
        generate_points(free, context, max_points=3, face_anchors=heads)
    with pytest.raises(ValueError, match="`face_anchors` must have shape"):
        generate_points(model, context, max_points=3, face_anchors=heads[:1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"point_head": "flat"}, "`point_head` must be 'depth' with `binding_head='anchored'`"),
        ({"anchor_reach": 0}, "`anchor_reach` and `anchor_hidden_size` must be at least 1"),
        ({"cube_center": [0.0, 0.0]}, "`cube_center` must be three numbers"),
        ({"binding_head": "tied"}, "binding_head"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(StrictDataclassError, match=message):
        build_config(**{**NARROW_DEPTH, **ANCHORED, **changes})
