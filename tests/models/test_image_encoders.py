# SPDX-License-Identifier: Apache-2.0
"""Encoders from elsewhere: three architectures, saved inside or read from where they are."""

import json
import shutil

import pytest
import torch
from made_up_weights import SIZES, build_image_encoder, write_image_encoder
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pointillist_hf import AvatarConditioner, AvatarConditionerConfig, PointCloudEncoder
from pointillist_hf.models.configuration_conditioner import IMAGE_CONFIGS

KINDS = tuple(IMAGE_CONFIGS)
POINTS = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_latents": 8}
# Tokens besides the patches: the whole, and registers.
EXTRA = {"dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 5}


def build_conditioner(folder, kind, *, inside=False, **values):
    encoder = build_image_encoder(kind)
    config = AvatarConditionerConfig(
        image_config=encoder.config.to_dict(),
        image_size=112,
        image_encoder_source=None if inside else str(folder),
        point_cloud_config=dict(POINTS),
        hidden_size=24,
        **values,
    )
    torch.manual_seed(1)
    conditioner = AvatarConditioner(config)
    conditioner.attach_encoder("image_encoder", folder)
    return conditioner.eval()


@pytest.fixture(scope="module", params=KINDS)
def encoder_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / request.param
    write_image_encoder(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "me"
    write_image_encoder(folder)
    return folder


def look(conditioner):
    pixels = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(3))
    points = torch.randn(1, 9, 6, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return conditioner(pixels, points)


@pytest.mark.parametrize("inside", [True, False])
def test_a_conditioner_on_a_given_encoder_is_saved_and_read(encoder_folder, inside, tmp_path):
    kind = encoder_folder.name
    conditioner = build_conditioner(encoder_folder, kind, inside=inside)
    tokens = look(conditioner)
    patches = (112 // conditioner.config.image_config.patch_size) ** 2
    assert tokens.shape == (1, EXTRA[kind] + patches + POINTS["num_latents"], 24)
    pixels = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        alone = build_image_encoder(kind)(pixels).last_hidden_state
    expected = conditioner.image_proj(alone) + conditioner.embed_kinds.weight[0]
    torch.testing.assert_close(tokens[:, : alone.shape[1]], expected, atol=1e-6, rtol=0)
    conditioner.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        held = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert ("image_encoder" in held) == inside
    again = AvatarConditioner.from_pretrained(tmp_path).eval()
    assert torch.equal(look(again), tokens)
    assert type(again.image_encoder) is type(build_image_encoder(kind))
    assert all(p.requires_grad == inside for p in again.image_encoder.parameters())
    half = AvatarConditioner.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    # Saved once more, of what was loaded.
    again.save_pretrained(tmp_path / "copy")
    assert torch.equal(look(AvatarConditioner.from_pretrained(tmp_path / "copy")), tokens)


def test_a_frozen_encoder_stays_as_it_is_in_training(encoder_folder):
    conditioner = build_conditioner(encoder_folder, encoder_folder.name)
    tokens = look(conditioner)
    conditioner.train()
    assert conditioner.training and not conditioner.image_encoder.training
    # DINOv3 would otherwise vary where its patches are.
    assert torch.equal(look(conditioner), tokens)
    conditioner(torch.randn(1, 3, 112, 112), torch.randn(1, 9, 6)).sum().backward()
    assert conditioner.image_proj.weight.grad is not None
    assert all(p.grad is None for p in conditioner.image_encoder.parameters())


def test_another_encoder_in_its_place_is_refused(dinov2, tmp_path):
    conditioner = build_conditioner(dinov2, "dinov2")
    conditioner.save_pretrained(tmp_path / "conditioner")
    moved = shutil.copytree(dinov2, tmp_path / "moved")
    loaded = AvatarConditioner.from_pretrained(tmp_path / "conditioner", image_encoder=moved)
    assert torch.equal(look(loaded.eval()), look(conditioner))
    assert loaded.config.image_encoder_source == str(moved)
    weights = load_file(moved / "model.safetensors")
    weights["layernorm.bias"] += 1e-6
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"must be the one that the conditioner was trained with"):
        AvatarConditioner.from_pretrained(tmp_path / "conditioner", image_encoder=moved)
    write_image_encoder(tmp_path / "other", "dinov3_vit")
    with pytest.raises(ValueError, match="has model_type 'dinov3_vit', and the conditioner wants"):
        AvatarConditioner.from_pretrained(
            tmp_path / "conditioner", image_encoder=tmp_path / "other"
        )
    config = json.loads((tmp_path / "conditioner/config.json").read_text())
    config["image_encoder_source"] = "me"  # what publishing leaves of a path
    (tmp_path / "conditioner/config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match="`image_encoder` must be a folder or a Hub id"):
        AvatarConditioner.from_pretrained(tmp_path / "conditioner")


def test_a_relative_folder_is_found_from_elsewhere(dinov2, tmp_path, monkeypatch):
    monkeypatch.chdir(dinov2.parent)
    conditioner = build_conditioner(dinov2.name, "dinov2")
    assert conditioner.config.image_encoder_source == str(dinov2)
    conditioner.save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(look(AvatarConditioner.from_pretrained(tmp_path)), look(conditioner))
    with pytest.raises(FileNotFoundError, match="`image_encoder` was not found at me/dinov2"):
        conditioner.attach_encoder("image_encoder", "me/dinov2")


def test_a_damaged_encoder_is_refused(dinov2, tmp_path):
    broken = shutil.copytree(dinov2, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["layernorm.bias"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing weights `layernorm\.bias`"):
        build_conditioner(broken, "dinov2")


def test_portraits_must_divide_into_patches(dinov2):
    with pytest.raises(Exception, match=r"multiple of the patches .* 14 pixels, got 120; take 112"):
        AvatarConditionerConfig(image_config={"patch_size": 14}, image_size=120)
    conditioner = build_conditioner(dinov2, "dinov2")
    with pytest.raises(ValueError, match="take 98 or 112"):
        conditioner(torch.zeros(1, 3, 111, 111), torch.zeros(1, 9, 6))
    with pytest.raises(ValueError, match=r"`model_type` of dinov2, .* got 'vit'"):
        AvatarConditionerConfig(image_config={"model_type": "vit"})


def test_the_point_cloud_encoder_can_stay_outside_too(dinov2, tmp_path):
    torch.manual_seed(5)
    config = AvatarConditionerConfig(point_cloud_config=dict(POINTS)).point_cloud_config
    encoder = PointCloudEncoder(config)
    encoder.save_pretrained(tmp_path / "points")
    folder = str(tmp_path / "points")
    conditioner = build_conditioner(dinov2, "dinov2", point_cloud_encoder_source=folder)
    conditioner.attach_encoder("point_cloud_encoder", folder)
    assert torch.equal(conditioner.point_cloud_encoder.latents.weight, encoder.latents.weight)
    conditioner.save_pretrained(tmp_path / "conditioner")
    names = {name.split(".")[0] for name in load_file(tmp_path / "conditioner/model.safetensors")}
    assert names == {"image_proj", "point_proj", "embed_kinds"}
    again = AvatarConditioner.from_pretrained(tmp_path / "conditioner").eval()
    assert torch.equal(look(again), look(conditioner))
    assert SIZES["hidden_size"] == again.image_encoder.config.hidden_size
