# SPDX-License-Identifier: Apache-2.0
"""Classifier-free guidance: what it draws, in both engines, and what is refused."""

import copy

import pytest
import torch
from engine_agreement import check_threads, count_ties, each_engine
from pretend_cuda import PretendCuda
from tiny_generators import CONTEXT, build_anchored, build_generator, random_heads

from pointillist_hf.decoding.cpu.decoder import build_rules
from pointillist_hf.decoding.generation import choose_engine, generate_points
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.decoding.guidance import pair_streams
from pointillist_hf.decoding.sampling import SeededSampling

SEEDS = [1, 2, 3]
exact_engines = pytest.mark.parametrize("engine", ["reference", "compiled"])


@pytest.fixture
def hidden(context):
    """What the blind streams look at: the last tokens are the head's."""
    return torch.cat([torch.randn(1, 3, CONTEXT).expand(3, -1, -1), context[:, 3:]], dim=1)


@pytest.fixture(scope="module")
def anchored():
    return build_anchored()


@pytest.mark.parametrize("scale", [0.3, 1.5, 4.0])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"temperature": 0.7, "min_p": 0.2}])
def test_engines_agree(model, scale, options, context, hidden):
    options = {"max_points": 12, "unconditional_states": hidden, **options}
    assert count_ties(model, context, SEEDS, guidance_scale=scale, **options) == 0


@pytest.mark.parametrize("grammar", ["types", "full", "faces", "every_face"])
def test_engines_agree_on_anchored_bindings(anchored, grammar, context, hidden):
    options = {"max_points": 30, "grammar": grammar, "guidance_scale": 1.5}
    options |= {"face_anchors": random_heads(2)[[0, 1, 1]], "unconditional_states": hidden}
    assert count_ties(anchored, context, SEEDS, **options) == 0


@pytest.mark.parametrize("order", ["xyzb", "yzxb"])
def test_engines_agree_where_bindings_come_last(order, context, hidden):
    options = {"max_points": 20, "guidance_scale": 2.0, "unconditional_states": hidden}
    options["face_anchors"] = random_heads(3)
    assert count_ties(build_anchored(order), context, SEEDS, **options) == 0


def mix_by_hand(model, context, hidden, heads, scale, num_points):
    """Greedy tokens of whole passes in float64, a slot at a time. [B, 4 N]"""
    model, layout = copy.deepcopy(model).double(), model.config.layout
    ids = torch.full((len(context), 4), layout.bos_token_id)
    for place in range(4 * num_points):
        low, high = layout.slot_range(place % 4)
        seeing, blind = (
            model(ids, states.double(), use_cache=False, face_anchors=heads).logits[:, -1, low:high]
            for states in (context, hidden)
        )
        scores = (1 - scale) * blind + scale * seeing
        ids = torch.cat([ids, low + scores.argmax(-1, keepdim=True)], dim=1)
    return ids[:, 4:]


@exact_engines
@pytest.mark.parametrize("scale", [0.0, 0.4, 2.5])
@torch.no_grad()
def test_logits_are_mixed_slot_by_slot(anchored, engine, scale, context, hidden):
    heads = random_heads(3)
    options = {"face_anchors": heads, "temperature": 0.0, "min_points": 6, "max_points": 6}
    options |= {"guidance_scale": scale, "unconditional_states": hidden}
    found = generate_points(anchored, context, engine=engine, **options)
    expected = mix_by_hand(anchored, context, hidden, heads, scale, 6)
    assert torch.equal(found.input_ids[:, 4:-4], expected)


@exact_engines
def test_a_scale_of_one_is_no_guidance(anchored, engine, context, hidden):
    options = {"face_anchors": random_heads(3), "max_points": 9, "engine": engine}
    plain = generate_points(anchored, context, **options)
    options["unconditional_states"] = hidden
    same = generate_points(anchored, context, guidance_scale=1.0, **options)
    assert torch.equal(same.input_ids, plain.input_ids)
    assert torch.equal(same.token_hidden_states, plain.token_hidden_states)
    more = generate_points(anchored, context, guidance_scale=2.0, **options)
    assert not torch.equal(more.input_ids, plain.input_ids)


@exact_engines
@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_streams_that_see_the_same_draw_as_one(model, engine, scale, context):
    options = {"max_points": 9, "engine": engine, "seeds": SEEDS}
    plain = generate_points(model, context, **options)
    options |= {"unconditional_states": context, "guidance_scale": scale}
    found = generate_points(model, context, **options)
    assert torch.equal(found.input_ids, plain.input_ids)
    assert torch.equal(found.num_points, plain.num_points)
    torch.testing.assert_close(found.token_hidden_states, plain.token_hidden_states)


@exact_engines
def test_a_scale_of_zero_draws_without_the_portrait(model, engine, context, hidden):
    options = {"max_points": 9, "engine": engine, "seeds": SEEDS}
    blind = generate_points(model, hidden, **options)
    options |= {"unconditional_states": hidden, "guidance_scale": 0.0}
    found = generate_points(model, context, **options)
    assert torch.equal(found.input_ids, blind.input_ids)
    # The decoder gets what the stream thought that sees the portrait.
    count = int(found.num_points[0])
    states = model.model(found.input_ids[:1], context[:1], use_cache=False).last_hidden_state
    expected = states[0, 4 : 4 * (count + 1)].unflatten(0, (count, 4))
    torch.testing.assert_close(found.token_hidden_states[0, :count], expected, atol=1e-4, rtol=1e-4)


@each_engine
def test_clouds_of_a_batch_have_the_bits_that_they_have_alone(anchored, engine):
    # One head: torch rounds the table of several otherwise than that of one.
    heads, context, hidden = random_heads(1).expand(4, -1, -1), *torch.randn(2, 4, 5, CONTEXT)
    options = {"max_points": 9, "engine": engine, "guidance_scale": 1.5}

    def generate(rows, **more):
        own = {"face_anchors": heads[rows], "unconditional_states": hidden[rows], **more}
        return generate_points(anchored, context[rows], **own, **options)

    batch = generate(slice(0, 4), seeds=range(8), num_return_sequences=2)
    assert len(batch.num_points.unique()) > 1  # rows end at different times
    for cloud in range(8):
        row = slice(cloud // 2, cloud // 2 + 1)
        alone = generate(row, seeds=[cloud])
        count = int(alone.num_points)
        assert count == batch.num_points[cloud]
        assert torch.equal(batch.token_hidden_states[cloud, :count], alone.token_hidden_states[0])


@exact_engines
def test_a_mask_holds_for_both_streams(model, engine, context, hidden):
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [0, 1, 1, 1, 1]])
    options = {"max_points": 9, "engine": engine, "guidance_scale": 1.5, "temperature": 0.0}
    batch = generate_points(
        model, context, unconditional_states=hidden, encoder_attention_mask=mask, **options
    )
    for row, kept in enumerate(mask.bool()):
        own = {"unconditional_states": hidden[row : row + 1, kept], **options}
        alone = generate_points(model, context[row : row + 1, kept], **own)
        length = alone.input_ids.shape[1]
        assert torch.equal(batch.input_ids[row, :length], alone.input_ids[0])


def test_any_number_of_threads_gives_the_same_bits(anchored, context, hidden):
    layout, heads = anchored.config.layout, random_heads(3).repeat_interleave(2, dim=0)
    grammar = PointGrammar(layout, level="every_face", min_points=20, max_points=20)
    rules = build_rules(layout, grammar, SeededSampling([], min_p=0.05), 1.5)
    paired = pair_streams(context, hidden)
    check_threads(anchored, paired, rules=rules, seeds=SEEDS, face_anchors=heads)


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self):
        self.values, self.ends = [], 0

    def put(self, value):
        self.values.append(value)

    def end(self):
        self.ends += 1


@exact_engines
def test_streamers_see_each_cloud_once(model, engine, context, hidden):
    recorder, options = Recorder(), {"min_points": 5, "max_points": 5, "engine": engine}
    options |= {"unconditional_states": hidden, "guidance_scale": 1.5, "streamer": recorder}
    found = generate_points(model, context, **options)
    prompt, *columns = recorder.values
    assert torch.equal(prompt, found.input_ids[:, :4])
    assert torch.equal(torch.stack(columns[:20], dim=1), found.input_ids[:, 4:24])
    assert recorder.ends == 1


def test_without_a_cache_the_tokens_are_the_same(context, hidden):
    model, options = build_generator(), {"max_points": 5, "engine": "reference"}
    options |= {"unconditional_states": hidden, "guidance_scale": 1.5}
    found = generate_points(model, context, use_cache=False, **options)
    expected = generate_points(model, context, **options)
    assert torch.equal(found.input_ids, expected.input_ids)
    torch.testing.assert_close(
        found.token_hidden_states, expected.token_hidden_states, atol=1e-4, rtol=1e-4
    )


def test_what_cannot_be_is_refused(model, context, hidden):
    for scale in (-0.1, float("nan"), float("inf"), 1e5, "2", None):
        with pytest.raises(ValueError, match="`guidance_scale` must be a finite number"):
            generate_points(model, context, guidance_scale=scale, unconditional_states=hidden)
    with pytest.raises(ValueError, match=r"`unconditional_states` must be given .*hide_portraits"):
        generate_points(model, context, guidance_scale=1.5)
    for states in (hidden[:2], hidden[:, 1:], hidden[..., 1:]):
        with pytest.raises(ValueError, match="`unconditional_states` must have shape"):
            generate_points(model, context, guidance_scale=1.5, unconditional_states=states)
    with pytest.raises(ValueError, match="`unconditional_states` must be finite"):
        broken = torch.full_like(hidden, torch.nan)
        generate_points(model, context, guidance_scale=1.5, unconditional_states=broken)


def test_recorded_graphs_know_no_guidance(model):
    with PretendCuda():
        on_cuda = {"encoder_hidden_states": torch.zeros(1, device="cuda")}
        assert choose_engine(model, "compiled", on_cuda, 1.0) == "compiled"
        assert choose_engine(model, "auto", on_cuda, 1.5) == "reference"
        with pytest.raises(
            ValueError, match=r"'compiled' cannot serve .* `guidance_scale` is not 1"
        ):
            choose_engine(model, "compiled", on_cuda, 1.5)
