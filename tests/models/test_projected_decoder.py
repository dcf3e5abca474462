# SPDX-License-Identifier: Apache-2.0
"""The decoder that knows what its points show in the photograph."""

from dataclasses import replace

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from pointillist_hf import GaussianDecoder, GaussianDecoderConfig
from pointillist_hf.models.modeling_gaussian_decoder import (
    HEAD_STD,
    INITIAL_DISC_OPACITY,
    INITIAL_TRUST,
    PointSights,
)

NUM_FEATURES, NUM_SAMPLES = 5, 4
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_frequencies": 4,
    "generator_hidden_size": None,
    "use_self_attention": False,
    "image_inputs": "projected",
    "num_sight_features": NUM_FEATURES + 3 * NUM_SAMPLES,
}


def build_decoder(**changes):
    torch.manual_seed(0)
    return GaussianDecoder(GaussianDecoderConfig(**{**SIZES, **changes})).eval()


def build_sights(batch=2, count=7):
    return PointSights(
        features=torch.randn(batch, count, NUM_FEATURES),
        samples=torch.rand(batch, count, NUM_SAMPLES, 3),
        quats=torch.nn.functional.normalize(torch.randn(batch, count, 4), dim=-1),
        scales=0.002 + 0.002 * torch.rand(batch, count, 3),
    )


@pytest.fixture
def means():
    return 0.1 * torch.randn(2, 7, 3)


def test_untrained_splats_are_the_discs_in_the_colours_of_the_photograph(means):
    decoder, sights = build_decoder(), build_sights()
    with torch.no_grad():
        decoder.head.weight.zero_()
    output = decoder(means, sights=sights)
    grey = 0.5 * (1 - INITIAL_TRUST)
    assert torch.allclose(output.colors, INITIAL_TRUST * sights.filled + grey, atol=1e-6)
    assert torch.allclose(output.opacities, torch.tensor(INITIAL_DISC_OPACITY), atol=1e-6)
    assert torch.allclose(output.scales, sights.scales)
    assert torch.allclose(output.quats, sights.quats, atol=1e-6)
    assert torch.equal(output.means, means)


def test_new_decoders_start_near_the_discs():
    assert build_decoder().head.weight.std().item() == pytest.approx(HEAD_STD, rel=0.1)


def test_outputs_stay_in_their_bounds(means):
    decoder, sights = build_decoder(max_offset=0.004), build_sights()
    with torch.no_grad():
        decoder.head.weight.mul_(1e4)
    output = decoder(means, sights=sights)
    assert output.offsets.abs().max() <= 0.004
    ratio = output.scales / sights.scales
    assert ratio.min() > 0.27 and ratio.max() < 3.67  # exp(+-1.3)
    assert output.colors.min() >= 0 and output.colors.max() <= 1


def test_points_alone_do_not_look_at_each_other(means):
    decoder, sights = build_decoder(), build_sights()
    whole = decoder(means, sights=sights)
    fields = {name: getattr(sights, name)[:, 2:4] for name in sights.__dataclass_fields__}
    part = decoder(means[:, 2:4], sights=PointSights(**fields))
    assert torch.allclose(whole.colors[:, 2:4], part.colors, atol=1e-6)
    seeing = build_decoder(use_self_attention=True)
    together = seeing(means, sights=sights).scales[:, 2:4]
    alone = seeing(means[:, 2:4], sights=PointSights(**fields)).scales
    assert not torch.allclose(together, alone, atol=1e-9)


def test_what_a_point_shows_decides_its_colour(means):
    decoder, sights = build_decoder(), build_sights()
    darker = replace(sights, samples=sights.samples / 2)
    before, after = decoder(means, sights=sights), decoder(means, sights=darker)
    assert (after.colors < before.colors).all()


def test_with_the_generator_s_features_beside(means):
    decoder, sights = build_decoder(generator_hidden_size=16), build_sights()
    states = torch.randn(2, 7, 4, 16)
    output = decoder(means, states, sights=sights)
    other = decoder(means, torch.zeros_like(states), sights=sights)
    assert not torch.equal(output.colors, other.colors)


def test_save_and_load(tmp_path, means):
    decoder, sights = build_decoder(), build_sights()
    decoder.save_pretrained(tmp_path)
    loaded = GaussianDecoder.from_pretrained(tmp_path)
    assert torch.equal(loaded(means, sights=sights).colors, decoder(means, sights=sights).colors)


def test_missing_sights_are_refused(means):
    with pytest.raises(ValueError, match="`sights` must be given"):
        build_decoder()(means)


@pytest.mark.parametrize("changes", [{"num_sight_features": 0}, {"image_inputs": "none"}])
def test_widths_that_contradict_the_inputs_are_refused(changes):
    with pytest.raises(StrictDataclassError, match="`num_sight_features` must be positive"):
        GaussianDecoderConfig(**{**SIZES, **changes})
