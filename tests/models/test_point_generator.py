# SPDX-License-Identifier: Apache-2.0
"""The autoregressive transformer: its window and cache, its conditioning, its losses."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_generators import (
    CONTEXT,
    WINDOW,
    build_config,
    build_generator,
    feed,
    label_tokens,
    random_ids,
)
from torch.nn.functional import cross_entropy

from pointillist_hf import PointGeneratorForCausalLM
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.training.windows import cut_window


@pytest.fixture
def context():
    return torch.randn(2, 5, CONTEXT)


@pytest.fixture(scope="module")
def generator():
    return build_generator()


@pytest.fixture(scope="module")
def precise():
    return build_generator().double()


@pytest.mark.parametrize("sizes", [[1] * 48, [4] + [1] * 44, [16, 16, 16], [20, 7, 1, 20]])
def test_rolling_cache_equals_the_windowed_forward(precise, context, sizes):
    ids = random_ids(precise.config)  # 48 tokens, three windows
    with torch.no_grad():
        expected = precise.model(ids, context.double(), use_cache=False).last_hidden_state
    found, _ = feed(precise, ids, context.double(), sizes)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_cache_keeps_no_more_than_the_window(precise, context):
    ids = random_ids(precise.config)
    cache = None
    for i in range(48):
        output = precise.model(
            ids[:, i : i + 1], context.double(), past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
    for layer in cache.self_attention_cache.layers:
        assert layer.keys.shape[2] <= WINDOW
    for layer in cache.cross_attention_cache.layers:
        assert layer.keys.shape[2] == 5


def test_one_layer_sees_exactly_its_window(context):
    model = build_generator(num_hidden_layers=1).double()
    ids = random_ids(model.config)
    context = context.double()
    whole = model.model(ids, context, use_cache=False).last_hidden_state[:, -1]
    # Positions are relative: the window alone says the same.
    window = model.model(ids[:, -WINDOW:], context, use_cache=False).last_hidden_state[:, -1]
    torch.testing.assert_close(window, whole, atol=1e-6, rtol=0)
    for place, is_seen in ((-WINDOW, True), (-WINDOW - 1, False)):
        changed = ids.clone()
        changed[:, place] = (changed[:, place] + 1) % 16
        states = model.model(changed, context, use_cache=False).last_hidden_state[:, -1]
        assert torch.equal(states, whole) != is_seen


def test_the_future_is_not_seen(generator, context):
    ids = random_ids(generator.config)
    changed = ids.clone()
    changed[:, 20] = (changed[:, 20] + 1) % 16
    first, second = (generator(i, context, use_cache=False).logits for i in (ids, changed))
    torch.testing.assert_close(first[:, :20], second[:, :20])
    assert not torch.allclose(first[:, 20], second[:, 20])


@pytest.mark.parametrize("num_points", [2, 10])
def test_eager_equals_sdpa(context, num_points):
    model = build_generator()
    ids = random_ids(model.config, num_points=num_points)
    fast = model(ids, context, use_cache=False).logits
    model.set_attn_implementation("eager")
    slow = model(ids, context, use_cache=False, output_attentions=True)
    torch.testing.assert_close(slow.logits, fast, atol=2e-5, rtol=1e-4)
    length = 4 * (num_points + 2)
    assert slow.attentions[0].shape == (2, 2, length, length)
    torch.testing.assert_close(slow.attentions[1].sum(-1), torch.ones(2, 2, length))
    assert slow.cross_attentions[0].shape == (2, 2, length, 5)


def test_padded_conditioning_is_not_seen(generator, context):
    ids = random_ids(generator.config)
    padded = torch.cat([context, torch.randn(2, 3, CONTEXT)], dim=1)
    mask = torch.tensor([[1] * 5 + [0] * 3] * 2)
    found = generator(ids, padded, encoder_attention_mask=mask, use_cache=False).logits
    expected = generator(ids, context, use_cache=False).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_conditioning_and_slots_matter(generator, context):
    ids = random_ids(generator.config)
    logits = generator(ids, context, use_cache=False).logits
    assert not torch.allclose(generator(ids, context + 1, use_cache=False).logits, logits)
    shifted = generator(ids, context, position_ids=torch.arange(1, 49)[None], use_cache=False)
    assert not torch.allclose(shifted.logits, logits)
    moved = generator(ids, context, position_ids=torch.arange(4, 52)[None], use_cache=False)
    torch.testing.assert_close(moved.logits, logits, atol=1e-4, rtol=1e-4)


def test_logits_to_keep(generator, context):
    ids = random_ids(generator.config)
    logits = generator(ids, context).logits
    assert logits.shape == (2, 48, 16 + 20 + 3)
    torch.testing.assert_close(generator(ids, context, logits_to_keep=3).logits, logits[:, -3:])
    places = torch.tensor([1, 40])
    kept = generator(ids, context, logits_to_keep=places).logits
    torch.testing.assert_close(kept, logits[:, places])


def test_typed_loss_is_the_masked_softmax(context):
    model = build_generator(loss_head="typed")
    layout = model.config.layout
    ids = random_ids(model.config, num_points=6)
    labels = label_tokens(ids, layout)
    assert (labels != -100).sum() == 2 * (4 * 6 + 1)
    loss = model(ids, context, labels=labels, use_cache=False).loss
    logits = model(ids, context, use_cache=False).logits
    # The grammar of the sampler, applied position by position.
    grammar = PointGrammar(layout, level="types", min_points=0)
    terms = []
    for place in range(4, ids.shape[1] - 3):
        allowed = grammar.allowed(ids[:, :place])
        scores = logits[:, place - 1].masked_fill(~allowed, -torch.inf)
        terms.append(cross_entropy(scores, labels[:, place], reduction="none"))
    torch.testing.assert_close(loss, torch.cat(terms).mean())


def test_typed_loss_of_windows_inside_a_cloud(context):
    model = build_generator(loss_head="typed")
    ids = random_ids(model.config, num_points=6)[:, 8:24]
    loss = model(ids, context, labels=ids, use_cache=False).loss
    logits = model(ids, context, use_cache=False).logits
    terms = []
    for place in range(1, 16):
        low, high = model.config.layout.slot_range(place % 4)
        scores = torch.full_like(logits[:, 0], -torch.inf)
        scores[:, low:high] = logits[:, place - 1, low:high]
        if place % 4 == 0:
            scores[:, 37] = logits[:, place - 1, 37]
        terms.append(cross_entropy(scores, ids[:, place], reduction="none"))
    torch.testing.assert_close(loss, torch.cat(terms).mean())


def test_full_loss_is_the_plain_cross_entropy(context):
    model = build_generator(loss_head="full")
    ids = random_ids(model.config, num_points=6)
    labels = label_tokens(ids, model.config.layout)
    output = model(ids, context, labels=labels, use_cache=False)
    log_likelihood = output.logits.log_softmax(-1)
    terms = [
        -log_likelihood[row, place - 1, labels[row, place]]
        for row in range(2)
        for place in range(1, ids.shape[1])
        if labels[row, place] != -100
    ]
    torch.testing.assert_close(output.loss, torch.stack(terms).mean())


def test_slot_losses_are_below_the_full_ones(context):
    """The typed softmax has fewer rivals."""
    ids = random_ids(build_config(), num_points=6)
    labels = label_tokens(ids, build_config().layout)
    typed, full = (
        build_generator(loss_head=head)(ids, context, labels=labels).loss
        for head in ("typed", "full")
    )
    assert typed < full


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 33}, "`hidden_size` .33. must be a multiple of twice"),
        ({"hidden_size": 30}, "heads are rotated in pairs"),
        ({"sliding_window": 18}, "`sliding_window` must be a multiple of 4 .* got 18"),
        ({"sliding_window": 4}, "`sliding_window` must be .* at least 8, got 4"),
        ({"token_order": "zyxb"}, "token_order"),
        ({"loss_head": "half"}, "loss_head"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(StrictDataclassError, match=message):
        build_config(**changes)


def test_impossible_vocabularies_are_refused():
    with pytest.raises(ValueError, match="`num_bins` must be a whole number, 2 to"):
        build_config(num_bins=1)


def test_missing_conditioning_is_refused(generator):
    with pytest.raises(ValueError, match="`encoder_hidden_states` must be given"):
        generator(torch.zeros(1, 4).long())


def test_ids_and_embeddings_exclude_each_other(generator, context):
    ids = random_ids(generator.config)
    embeddings = generator.model.embed_tokens(ids)
    torch.testing.assert_close(
        generator(inputs_embeds=embeddings, encoder_hidden_states=context).logits,
        generator(ids, context).logits,
    )
    for kwargs in ({}, {"input_ids": ids, "inputs_embeds": embeddings}):
        with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
            generator(encoder_hidden_states=context, **kwargs)


@pytest.mark.parametrize("is_tied", [False, True])
def test_save_and_load(tmp_path, context, is_tied):
    model = build_generator(tie_word_embeddings=is_tied, token_order="yzxb", loss_head="typed")
    model.save_pretrained(tmp_path)
    loaded = PointGeneratorForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.to_dict() == {**model.config.to_dict(), **loaded_only(loaded)}
    ids = random_ids(model.config)
    assert torch.equal(loaded(ids, context).logits, model(ids, context).logits)
    shares = loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert shares == is_tied


def loaded_only(model):
    """Fields that loading fills in."""
    names = ("_name_or_path", "architectures", "dtype", "transformers_version")
    return {n: v for n, v in model.config.to_dict().items() if n in names}


def test_checkpointing_gives_the_same_gradients(context):
    gradients = []
    for checkpoints in (False, True):
        model = build_generator().train()
        if checkpoints:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)
        ids = random_ids(model.config)
        model(ids, context, labels=ids, use_cache=False).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("loss_head", ["typed", "full"])
def test_it_learns_one_cloud(loss_head, tiny_generator, tiny_tokenizer, tiny_points):
    config = copy.deepcopy(tiny_generator.config)
    config.loss_head = loss_head
    model = PointGeneratorForCausalLM(config).train()
    ids = tiny_tokenizer.encode_points(tiny_points)[: 4 * 16]
    ids, labels = cut_window(ids, 0, len(ids), tiny_tokenizer.layout)
    context = torch.randn(1, 5, config.cross_attention_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = model(ids[None], context, labels=labels[None], use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
