# SPDX-License-Identifier: Apache-2.0
"""From points to splats."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from pointillist_hf import GaussianDecoder, GaussianDecoderConfig

FIELDS = ("means", "offsets", "quats", "scales", "opacities", "colors")
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_frequencies": 4,
    "generator_hidden_size": 16,
    "initializer_range": 0.2,
}


def build_decoder(**changes):
    torch.manual_seed(0)
    return GaussianDecoder(GaussianDecoderConfig(**{**SIZES, **changes})).eval()


@pytest.fixture(scope="module")
def decoder():
    return build_decoder()


def random_inputs(batch=2, count=7, size=16):
    return 0.2 * torch.randn(batch, count, 3), torch.randn(batch, count, 4, size)


def check_close(output, expected):
    for name in FIELDS:
        found = getattr(output, name)
        torch.testing.assert_close(found, getattr(expected, name), atol=1e-5, rtol=1e-5)


def test_shapes(decoder):
    output = decoder(*random_inputs())
    shapes = {name: tuple(getattr(output, name).shape) for name in FIELDS}
    assert shapes == {
        "means": (2, 7, 3),
        "offsets": (2, 7, 3),
        "quats": (2, 7, 4),
        "scales": (2, 7, 3),
        "opacities": (2, 7),
        "colors": (2, 7, 3),
    }
    splats = output.gaussians(1, 5)
    assert len(splats) == 5
    assert torch.equal(splats.colors, output.colors[1, :5])


def test_means_are_points_plus_offsets(decoder):
    means, states = random_inputs()
    output = decoder(means, states)
    torch.testing.assert_close(output.means, means + output.offsets)
    assert output.offsets.abs().max() > 0


@pytest.mark.parametrize("strength", [1.0, 30.0])
def test_any_raw_output_is_a_splat(decoder, strength):
    config = decoder.config
    raw = strength * (2 * torch.rand(3, 500, 14) - 1)
    output = decoder.activate(torch.zeros(3, 500, 3), raw)
    assert output.offsets.abs().max() <= config.max_offset
    assert output.scales.min() > 0
    assert output.scales.max() <= config.max_scale
    torch.testing.assert_close(output.quats.norm(dim=-1), torch.ones(3, 500))
    for name in ("opacities", "colors"):
        assert getattr(output, name).min() >= 0
        assert getattr(output, name).max() <= 1


def test_raw_zero_is_the_configured_splat(decoder):
    means = torch.randn(1, 2, 3)
    output = decoder.activate(means, torch.zeros(1, 2, 14))
    assert torch.equal(output.means, means)
    torch.testing.assert_close(output.scales, torch.full((1, 2, 3), decoder.config.initial_scale))
    opacities = torch.full((1, 2), decoder.config.initial_opacity)
    torch.testing.assert_close(output.opacities, opacities)
    assert torch.equal(output.quats, torch.eye(4)[:1].expand(1, 2, 4))
    assert torch.equal(output.colors, torch.full((1, 2, 3), 0.5))


def test_padded_rows_equal_single_ones(decoder):
    means, states = random_inputs()
    mask = torch.tensor([[1] * 4 + [0] * 3, [1] * 7])
    output = decoder(means, states, attention_mask=mask)
    short = decoder(means[:1, :4], states[:1, :4])
    whole = decoder(means[1:], states[1:])
    for name in FIELDS:
        padded = getattr(output, name)
        torch.testing.assert_close(padded[:1, :4], getattr(short, name), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(padded[1:], getattr(whole, name), atol=1e-5, rtol=1e-5)
        assert torch.isfinite(padded).all()


def test_order_of_the_points_does_not_matter(decoder):
    means, states = random_inputs()
    order = torch.randperm(7)
    output, shuffled = decoder(means, states), decoder(means[:, order], states[:, order])
    for name in FIELDS:
        expected = getattr(output, name)[:, order]
        torch.testing.assert_close(getattr(shuffled, name), expected, atol=1e-5, rtol=1e-5)


def test_points_states_and_neighbours_matter(decoder):
    means, states = random_inputs()
    colors = decoder(means, states).colors
    for changed in ((means + 0.05, states), (means, states + 1)):
        assert not torch.allclose(decoder(*changed).colors, colors, atol=1e-4)
    neighbour = states.clone()
    neighbour[:, 3] += 3
    assert not torch.allclose(decoder(means, neighbour).colors[:, 0], colors[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "knows_place", "knows_states"),
    [
        ("both", True, True),
        ("positions", True, False),
        ("features", False, True),
        ("template", True, False),
    ],
)
def test_inputs_say_what_a_point_is_known_by(inputs, knows_place, knows_states, tmp_path):
    decoder, (means, states) = build_decoder(inputs=inputs), random_inputs()
    output = decoder(means, states)
    moved, others = decoder(means + 0.05, states), decoder(means, states + 1)
    assert (not torch.equal(moved.colors, output.colors)) == knows_place
    assert (not torch.equal(others.colors, output.colors)) == knows_states
    torch.testing.assert_close(output.means, means + output.offsets)
    decoder.save_pretrained(tmp_path)
    loaded = GaussianDecoder.from_pretrained(tmp_path)
    assert loaded.config.inputs == inputs
    if knows_states:
        with pytest.raises(ValueError, match="`token_hidden_states` must be given"):
            loaded(means)
        assert torch.equal(loaded(means, states).colors, output.colors)
    else:
        assert loaded.config.generator_hidden_size is None
        assert torch.equal(loaded(means).colors, output.colors)


def test_the_paper_has_both_inputs():
    assert GaussianDecoderConfig().inputs == "both"
    # As decoders without F said it before they had the field.
    assert GaussianDecoderConfig(generator_hidden_size=None).inputs == "positions"


def test_small_decoders_look_at_the_conditioning():
    decoder = build_decoder(cross_attention_size=24)
    means, states = random_inputs()
    context = torch.randn(2, 5, 24)
    output = decoder(means, states, encoder_hidden_states=context)
    other = decoder(means, states, encoder_hidden_states=-context)
    assert not torch.allclose(output.colors, other.colors, atol=1e-4)
    with pytest.raises(ValueError, match="`encoder_hidden_states` must be given"):
        decoder(means, states)


@pytest.mark.parametrize("cross_attention_size", [None, 24])
def test_save_and_load(tmp_path, cross_attention_size):
    decoder = build_decoder(cross_attention_size=cross_attention_size, max_offset=0.02)
    decoder.save_pretrained(tmp_path)
    loaded = GaussianDecoder.from_pretrained(tmp_path)
    inputs, context = (
        random_inputs(),
        None if cross_attention_size is None else torch.randn(2, 5, 24),
    )
    first, second = (d(*inputs, encoder_hidden_states=context) for d in (decoder, loaded))
    for name in FIELDS:
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert loaded.config.cube_center == [0.0, -0.03, -0.04]


def test_one_splat_learns_a_colour():
    decoder = build_decoder().train()
    means, states = random_inputs(batch=1)
    target = torch.rand(1, 7, 3)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    for _ in range(80):
        loss = (decoder(means, states).colors - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 33}, "`hidden_size` .33. must be a multiple of"),
        ({"initial_scale": 0.06}, "`initial_scale` must lie between 0 and `max_scale`"),
        ({"initial_scale": 0.0}, "`initial_scale` must lie between 0 and `max_scale`"),
        ({"initial_opacity": 1.0}, "`initial_opacity` between 0 and 1"),
        ({"inputs": "points"}, "inputs"),
        (
            {"inputs": "features", "generator_hidden_size": None},
            "`generator_hidden_size` must be the width of the generator",
        ),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(StrictDataclassError, match=message):
        GaussianDecoderConfig(**{**SIZES, **changes})
