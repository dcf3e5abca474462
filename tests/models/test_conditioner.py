# SPDX-License-Identifier: Apache-2.0
"""What the generator looks at."""

import math

import pytest
import torch

from pointillist_hf import AvatarConditioner, PointCloudEncoder, PointCloudEncoderConfig
from pointillist_hf.models.attention_blocks import CrossBlock, SelfBlock, fourier_features
from pointillist_hf.training.recipes import build_conditioner_config


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = PointCloudEncoderConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_latents=8, num_points=64
    )
    return PointCloudEncoder(config).eval()


@pytest.fixture(scope="module")
def conditioner(tiny_tokenizer):
    torch.manual_seed(0)
    return AvatarConditioner(build_conditioner_config("nano", tiny_tokenizer)).eval()


def random_clouds(batch=2, count=64):
    normals = torch.nn.functional.normalize(torch.randn(batch, count, 3), dim=-1)
    return torch.cat([2 * torch.rand(batch, count, 3) - 1, normals], dim=-1)


@pytest.mark.parametrize("base", [1.0, math.pi])
def test_fourier_features_are_octaves(base):
    coords = torch.rand(5, 3) * 2 - 1
    features = fourier_features(coords, 4, base=base)
    assert features.shape == (5, 3 + 6 * 4)
    for n, point in enumerate(coords.tolist()):
        angles = [base * 2**k * c for c in point for k in range(4)]
        expected = point + [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        torch.testing.assert_close(features[n], torch.tensor(expected), atol=1e-5, rtol=0)


def test_fourier_features_at_the_origin():
    features = fourier_features(torch.zeros(3), 2)
    assert features.tolist() == [0.0] * 9 + [1.0] * 6


def test_point_order_does_not_matter(encoder):
    clouds = random_clouds()
    tokens = encoder(clouds)
    assert tokens.shape == (2, 8, 32)
    shuffled = encoder(clouds[:, torch.randperm(64)])
    torch.testing.assert_close(shuffled, tokens, atol=1e-5, rtol=0)


def test_clouds_of_a_batch_are_encoded_apart(encoder):
    clouds = random_clouds()
    torch.testing.assert_close(encoder(clouds)[1:], encoder(clouds[1:]), atol=1e-5, rtol=0)
    assert not torch.allclose(encoder(clouds)[0], encoder(clouds)[1], atol=1e-3)


def test_normals_matter(encoder):
    clouds = random_clouds()
    flipped = torch.cat([clouds[..., :3], -clouds[..., 3:]], dim=-1)
    assert not torch.allclose(encoder(flipped), encoder(clouds), atol=1e-4)


def test_any_number_of_points_gives_the_same_number_of_tokens(encoder):
    assert encoder(random_clouds(count=17)).shape == (2, 8, 32)
    # Attention is a mean: every point twice is the same cloud.
    clouds = random_clouds()
    torch.testing.assert_close(encoder(clouds.repeat(1, 2, 1)), encoder(clouds), atol=1e-5, rtol=0)


def test_masked_context_is_not_seen():
    for block, context in ((CrossBlock(32, 2, 24), torch.randn(2, 6, 24)),):
        states, mask = torch.randn(2, 5, 32), torch.tensor([[1, 1, 1, 0, 0, 0]] * 2)
        expected = block(states, context[:, :3])
        torch.testing.assert_close(block(states, context, mask), expected, atol=1e-6, rtol=0)
    states = torch.randn(2, 6, 32)
    block = SelfBlock(32, 2)
    masked = block(states, mask)[:, :3]
    torch.testing.assert_close(masked, block(states[:, :3]), atol=1e-6, rtol=0)


def test_tokens_of_image_then_head(conditioner, tiny_rig):
    pixels = torch.randn(2, 3, 56, 56)
    rig_points = tiny_rig.sample_points(torch.randn(2, tiny_rig.num_betas), 64)
    tokens = conditioner(pixels, rig_points)
    assert tokens.shape == (2, 1 + 16 + 8, 32)
    seen = conditioner.encode_image(conditioner.look_at(pixels))
    torch.testing.assert_close(tokens[:, :17], seen)
    torch.testing.assert_close(tokens[:, 17:], conditioner.encode_points(rig_points))
    alone = conditioner(pixels[1:], rig_points[1:])
    torch.testing.assert_close(tokens[1:], alone, atol=1e-5, rtol=0)


def test_the_head_is_given_in_the_tokenizers_cube(conditioner, tiny_tokenizer, tiny_rig):
    rig_points = tiny_rig.sample_points(torch.zeros(1, tiny_rig.num_betas), 64)
    coords = tiny_tokenizer.normalize_coords(rig_points[..., :3])
    assert coords.abs().max() <= 1
    states = conditioner.point_cloud_encoder(torch.cat([coords, rig_points[..., 3:]], dim=-1))
    expected = conditioner.point_proj(states) + conditioner.embed_kinds.weight[1]
    torch.testing.assert_close(conditioner.encode_points(rig_points), expected)


def test_image_and_head_matter(conditioner, tiny_rig):
    pixels = torch.randn(1, 3, 56, 56)
    betas = torch.randn(2, tiny_rig.num_betas)
    rig_points = tiny_rig.sample_points(betas, 64)
    first, second = (conditioner(pixels, rig_points[i : i + 1]) for i in range(2))
    assert torch.equal(first[:, :17], second[:, :17])
    assert not torch.allclose(first[:, 17:], second[:, 17:], atol=1e-5)
    other = conditioner.encode_image(conditioner.look_at(-pixels))
    assert not torch.allclose(other, first[:, :17], atol=1e-5)


def test_a_hidden_portrait_leaves_the_head(conditioner, tiny_rig):
    pixels = torch.randn(2, 3, 56, 56)
    rig_points = tiny_rig.sample_points(torch.randn(2, tiny_rig.num_betas), 64)
    shown = conditioner(pixels, rig_points)
    hidden = conditioner.hide_portraits(shown)
    assert torch.equal(hidden[:, 17:], shown[:, 17:])
    # What the projection of nothing would give, had it no bias.
    nothing = conditioner.embed_kinds.weight[0].expand(2, 17, -1)
    assert torch.equal(hidden[:, :17], nothing)
    rows = torch.tensor([True, False])
    mixed = conditioner(pixels, rig_points, hide_portrait=rows)
    assert torch.equal(mixed[0], hidden[0])
    assert torch.equal(mixed[1], shown[1])


def test_save_and_load(conditioner, tiny_rig, tmp_path):
    conditioner.save_pretrained(tmp_path)
    loaded = AvatarConditioner.from_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 56, 56)
    rig_points = tiny_rig.sample_points(torch.randn(1, tiny_rig.num_betas), 64)
    assert torch.equal(loaded(pixels, rig_points), conditioner(pixels, rig_points))
    assert loaded.config.cube_center == conditioner.config.cube_center
    assert loaded.config.point_cloud_config.num_points == 64


def test_encoder_saves_and_loads_alone(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    clouds = random_clouds()
    assert torch.equal(PointCloudEncoder.from_pretrained(tmp_path)(clouds), encoder(clouds))


def test_gradients_reach_both_encoders(tiny_tokenizer, tiny_rig):
    conditioner = AvatarConditioner(build_conditioner_config("nano", tiny_tokenizer))
    rig_points = tiny_rig.sample_points(torch.randn(1, tiny_rig.num_betas), 64)
    conditioner(torch.randn(1, 3, 56, 56), rig_points).square().mean().backward()
    unused = {n for n, p in conditioner.named_parameters() if p.grad is None}
    assert unused <= {"image_encoder.embeddings.mask_token"}
