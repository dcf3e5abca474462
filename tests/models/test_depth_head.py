# SPDX-License-Identifier: Apache-2.0
"""The depth head: one step of the large transformer per point, four small ones inside."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_generators import (
    CONTEXT,
    NARROW_DEPTH,
    build_config,
    build_generator,
    each_order,
    feed,
    label_tokens,
    random_ids,
)
from torch.nn.functional import cross_entropy
from transformers.cache_utils import DynamicCache, StaticCache

from pointillist_hf import PointGeneratorForCausalLM
from pointillist_hf.decoding.generation import generate_points
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.models.depth_point_head import PointCache


@pytest.fixture
def context():
    return torch.randn(2, 5, CONTEXT)


@pytest.fixture(scope="module")
def generator():
    return build_generator(**NARROW_DEPTH)


@pytest.fixture(scope="module")
def precise():
    return build_generator(**NARROW_DEPTH).double()


def naive_states(model, ids, context):
    """Token states by one call of the layers and one of the depth head per point and slot."""
    inner, head = model.model, model.model.depth_head
    embeddings = inner.embed_tokens(ids)
    states = [head.initial_state(len(ids))]
    for count in range(1, ids.shape[1] // 4 + 1):
        points = head.join_tokens(embeddings[:, : 4 * count])
        places = torch.arange(count)[None]
        states.append(inner.transform(points, context, None, None, places, None)[:, -1:])
    found = []
    for t in range(ids.shape[1]):
        point, slot = divmod(t + 1, 4)
        tokens = torch.zeros_like(embeddings[:, :4])
        tokens[:, :slot] = embeddings[:, 4 * point : 4 * point + slot]
        found.append(head(states[point], tokens, num_steps=4)[:, 0, slot])
    return torch.stack(found, dim=1)


@torch.no_grad()
def test_forward_is_what_the_docstrings_say(precise, context):
    ids = random_ids(precise.config)
    found = precise.model(ids, context.double(), use_cache=False).last_hidden_state
    expected = naive_states(precise, ids, context.double())
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    assert found.shape == (2, 48, 32)


@pytest.mark.parametrize("sizes", [[1] * 48, [4] + [1] * 44, [16, 16, 16], [20, 7, 1, 20], [2, 46]])
def test_incremental_equals_the_full_forward_beyond_the_window(precise, context, sizes):
    ids = random_ids(precise.config)  # 12 points, three windows
    with torch.no_grad():
        expected = precise.model(ids, context.double(), use_cache=False).last_hidden_state
    found, _ = feed(precise, ids, context.double(), sizes)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_the_window_is_the_flat_one_in_points(context):
    model, context = build_generator(num_hidden_layers=1, **NARROW_DEPTH).double(), context.double()
    ids = random_ids(model.config)  # the window of 16 tokens is 4 points
    whole = model.model(ids, context, use_cache=False).last_hidden_state[:, -1]
    for place, is_seen in ((-16, True), (-17, False)):
        changed = ids.clone()
        changed[:, place] = (changed[:, place] + 1) % 16
        states = model.model(changed, context, use_cache=False).last_hidden_state[:, -1]
        assert torch.equal(states, whole) != is_seen
    cache = model.model(ids, context, use_cache=True).past_key_values
    assert cache.get_seq_length() == 48
    for layer in cache.self_attention_cache.layers:
        assert layer.keys.shape[2] <= 4


def test_a_token_depends_on_all_before_it_and_none_after(precise, context):
    ids = random_ids(precise.config, num_points=2)
    first = precise.model(ids, context.double(), use_cache=False).last_hidden_state
    for place in range(16):
        changed = ids.clone()
        changed[:, place] = (changed[:, place] + 1) % 16
        states = precise.model(changed, context.double(), use_cache=False).last_hidden_state
        differs = (states != first).any(-1).all(0)
        assert differs.tolist() == [False] * place + [True] * (16 - place)


def test_permuted_coordinates_are_other_points(precise, context):
    """The slots share a table of embeddings, not their place in a point."""
    ids = random_ids(precise.config, num_points=2)
    ids[:, 4:7] = torch.tensor([1, 2, 3])
    swapped = ids.clone()
    swapped[:, 4:7] = torch.tensor([2, 1, 3])
    first, second = (
        precise.model(i, context.double(), use_cache=False).last_hidden_state[:, 7:]
        for i in (ids, swapped)
    )
    assert (first - second).abs().min() > 1e-4


@each_order
def test_logits_are_those_of_the_slot_alone(order, context):
    model = build_generator(token_order=order, **NARROW_DEPTH)
    layout, ids = model.config.layout, random_ids(model.config)
    states = model.model(ids, context, use_cache=False).last_hidden_state
    whole = model.lm_head(states)
    logits = model(ids, context, use_cache=False).logits
    grammar = PointGrammar(layout, level="types", min_points=0)
    for place in range(3, 44):
        allowed = grammar.allowed(ids[:, : place + 1])
        assert torch.equal(logits[:, place] > -1e30, allowed)
        torch.testing.assert_close(logits[:, place][allowed], whole[:, place][allowed])
    last = model(ids, context, logits_to_keep=3).logits
    torch.testing.assert_close(last, logits[:, -3:])
    places = torch.tensor([1, 40])
    assert torch.equal(model(ids, context, logits_to_keep=places).logits, logits[:, places])


def test_the_loss_is_the_masked_softmax(context):
    model = build_generator(**NARROW_DEPTH)
    ids = random_ids(model.config, num_points=6)
    labels = label_tokens(ids, model.config.layout)
    loss = model(ids, context, labels=labels, use_cache=False).loss
    logits = model(ids, context, use_cache=False).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(loss, expected)


def test_padded_conditioning_and_padded_points_are_not_seen(generator, context):
    ids = random_ids(generator.config, num_points=2)
    expected = generator(ids, context, use_cache=False).logits
    padded = torch.cat([context, torch.randn(2, 3, CONTEXT)], dim=1)
    mask = torch.tensor([[1] * 5 + [0] * 3] * 2)
    found = generator(ids, padded, encoder_attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    front = torch.cat([torch.zeros(2, 8).long(), ids], dim=1)
    mask = torch.tensor([[0] * 8 + [1] * 16] * 2)
    found = generator(front, context, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(found[:, 11:], expected[:, 3:], atol=1e-5, rtol=1e-5)


def test_positions_are_relative(generator, context):
    ids = random_ids(generator.config)
    logits = generator(ids, context, use_cache=False).logits
    moved = generator(ids, context, position_ids=torch.arange(4, 52)[None], use_cache=False).logits
    torch.testing.assert_close(moved, logits, atol=1e-4, rtol=1e-4)
    gap = torch.arange(48)[None] + 40 * (torch.arange(48)[None] >= 12)
    spread = generator(ids, context, position_ids=gap, use_cache=False).logits
    assert not torch.allclose(spread[:, 12:], logits[:, 12:])


def test_eager_equals_sdpa(context):
    model = build_generator(**NARROW_DEPTH)
    for num_points in (2, 10):
        ids = random_ids(model.config, num_points=num_points)
        model.set_attn_implementation("sdpa")
        fast = model(ids, context, use_cache=False).logits
        model.set_attn_implementation("eager")
        slow = model(ids, context, use_cache=False, output_attentions=True)
        torch.testing.assert_close(slow.logits, fast, atol=2e-5, rtol=1e-4)
        assert slow.attentions[0].shape == (2, 2, num_points + 2, num_points + 2)


def test_every_parameter_gets_a_gradient_and_checkpointing_the_same(context):
    gradients = []
    for checkpoints in (False, True):
        model = build_generator(**NARROW_DEPTH).train()
        if checkpoints:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)
        ids = random_ids(model.config)[:, 8:24]  # starts inside a cloud, so the start is scored
        model(ids, context, labels=ids, use_cache=False).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_gradients_are_those_of_differences():
    model = build_generator(
        **{**NARROW_DEPTH, "num_hidden_layers": 1, "depth_num_hidden_layers": 1}
    ).double()
    ids, context = random_ids(model.config, batch=1, num_points=1), torch.randn(1, 2, CONTEXT)
    labels = label_tokens(ids, model.config.layout)

    def loss(weight, context):
        parameters = {"model.depth_head.point_proj.weight": weight}
        kwargs = {"labels": labels, "use_cache": False}
        return torch.func.functional_call(model, parameters, (ids, context), kwargs).loss

    weight = model.model.depth_head.point_proj.weight.detach().clone().requires_grad_()
    inputs = (weight, context.double().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_mixed_and_half_precision(context):
    model = build_generator(**NARROW_DEPTH).train()
    ids = random_ids(model.config)
    labels = label_tokens(ids, model.config.layout)
    expected = model(ids, context, labels=labels, use_cache=False).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = model.model(ids, context, use_cache=False).last_hidden_state
        loss = model(ids, context, labels=labels, use_cache=False).loss
    assert output.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=0.02, rtol=0)
    half = build_generator(**NARROW_DEPTH).bfloat16()
    output = generate_points(half, context.bfloat16(), max_points=3, engine="reference")
    assert output.token_hidden_states.dtype == torch.bfloat16


@pytest.mark.parametrize("is_tied", [False, True])
def test_save_and_load(tmp_path, context, is_tied):
    model = build_generator(tie_word_embeddings=is_tied, token_order="yzxb", **NARROW_DEPTH)
    model.save_pretrained(tmp_path)
    loaded = PointGeneratorForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.depth_hidden_size == 24
    ids = random_ids(model.config)
    assert torch.equal(loaded(ids, context).logits, model(ids, context).logits)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == is_tied


def test_sizes_default_to_those_of_the_layers():
    config = build_config(point_head="depth", loss_head="typed")
    assert (config.depth_hidden_size, config.depth_num_attention_heads) == (32, 2)
    assert (config.depth_intermediate_size, config.depth_num_hidden_layers) == (64, 3)
    flat = build_config()
    assert flat.point_head == "flat"
    assert flat.depth_hidden_size is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss_head": "full"},
            "`loss_head` must be 'typed' with `point_head='depth'`, got 'full'",
        ),
        ({"depth_num_hidden_layers": 0}, "`depth_num_hidden_layers` must be at least 1, got 0"),
        ({"depth_hidden_size": 25}, "`depth_hidden_size` .25. must be a multiple of"),
        ({"depth_num_attention_heads": 0}, "`depth_num_attention_heads` .0."),
        ({"point_head": "deep"}, "point_head"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(StrictDataclassError, match=message):
        build_config(**{**NARROW_DEPTH, **changes})


def test_what_the_head_cannot_use_is_refused(generator, context):
    ids = random_ids(generator.config)
    masks = {"sliding_attention": torch.ones(2, 1, 48, 48, dtype=torch.bool)}
    with pytest.raises(ValueError, match="Masks of static caches cannot be used with `input_ids`"):
        generator(ids, context, attention_mask=masks)
    points = generator.model.depth_head.join_tokens(generator.model.embed_tokens(ids))
    with pytest.raises(ValueError, match="`inputs_embeds` cannot be used with `point_head='depth'"):
        generator(inputs_embeds=points, encoder_hidden_states=context)
    cache = generator.model(ids, context, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="A `PointCache` counts tokens and cannot be used with"):
        generator.model(inputs_embeds=points, encoder_hidden_states=context, past_key_values=cache)
    static = StaticCache(config=generator.config, max_cache_len=64)
    with pytest.raises(ValueError, match=r"empty cache that grows .* got a StaticCache"):
        generator(ids, context, past_key_values=static)
    tokens = DynamicCache()
    tokens.update(torch.zeros(2, 2, 3, 16), torch.zeros(2, 2, 3, 16), 0)
    with pytest.raises(ValueError, match="got a DynamicCache of 3 tokens"):
        generator(ids, context, past_key_values=tokens)


def test_the_large_transformer_alone(generator, context):
    ids, states = random_ids(generator.config), []
    handle = generator.model.norm.register_forward_hook(lambda *a: states.append(a[2]))
    generator.model(ids, context, use_cache=False)
    handle.remove()
    points = generator.model.depth_head.join_tokens(generator.model.embed_tokens(ids))
    found = generator.model(inputs_embeds=points, encoder_hidden_states=context)
    assert torch.equal(found.last_hidden_state, states[0])
    first = generator.model(inputs_embeds=points[:, :7], encoder_hidden_states=context)
    rest = generator.model(
        inputs_embeds=points[:, 7:],
        encoder_hidden_states=context,
        past_key_values=first.past_key_values,
    )
    torch.testing.assert_close(rest.last_hidden_state, states[0][:, 7:], atol=1e-5, rtol=1e-5)


def test_the_cache_follows_its_rows(precise, context):
    ids, context = random_ids(precise.config), context.double()
    cache = precise.model(ids[:, :14], context, use_cache=True).past_key_values
    assert isinstance(cache, PointCache)
    cache.reorder_cache(torch.tensor([1, 0]))
    flipped = precise.model(ids[[1, 0], 14:], context[[1, 0]], past_key_values=cache)
    expected = precise.model(ids, context, use_cache=False).last_hidden_state[:, 14:]
    torch.testing.assert_close(flipped.last_hidden_state, expected[[1, 0]], atol=1e-10, rtol=0)
    with pytest.raises(NotImplementedError, match="cannot be taken back"):
        cache.crop(-1)
    cache.reset()
    again = precise.model(ids, context, past_key_values=cache).last_hidden_state
    torch.testing.assert_close(again[:, 14:], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("head", ["flat", "depth"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_training_forward_is_one_graph(head, implementation, context):
    model = build_generator(attention=implementation, **(NARROW_DEPTH if head == "depth" else {}))
    ids = random_ids(model.config, num_points=2)
    labels = label_tokens(ids, model.config.layout)

    def loss(ids, context, labels):
        return model(input_ids=ids, encoder_hidden_states=context, labels=labels, use_cache=False)[
            0
        ]

    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids, context, labels), loss(ids, context, labels))
