# SPDX-License-Identifier: Apache-2.0
"""What is saved of a rig, an avatar or a pipeline on FLAME refers to the user's file."""

import json
import os

import numpy as np
import pytest
import torch
from fake_flame import fake_arrays, random_params, rotation, write_flame
from safetensors import safe_open

from pointillist_hf import (
    Avatar,
    AvatarConditioner,
    AvatarPipeline,
    FlameHeadRig,
    GaussianDecoder,
    PointGeneratorForCausalLM,
    PointTokenizer,
)
from pointillist_hf.geometry.structures import Gaussians
from pointillist_hf.rigs.binding import animate_gaussians
from pointillist_hf.rigs.flame.model_file import convert_flame
from pointillist_hf.training import recipes


def test_a_saved_rig_is_a_reference(flame_rig, flame_file, tmp_path):
    flame_rig.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["version"] == "2023"
    assert len(config["sha256"]) == 64
    loaded = FlameHeadRig.from_pretrained(tmp_path)
    for name, array in flame_rig.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], array)
    with pytest.raises(ValueError, match="`push_to_hub` must not be set"):
        flame_rig.save_pretrained(tmp_path / "pushed", push_to_hub=True)
    assert not (tmp_path / "pushed").exists()


def test_a_moved_file_is_found_again(flame_file, flame_arrays, tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    os.link(flame_file, tmp_path / "old" / "flame2023.pkl")
    FlameHeadRig.from_flame(tmp_path / "old" / "flame2023.pkl").save_pretrained(tmp_path / "rig")
    (tmp_path / "old" / "flame2023.pkl").rename(tmp_path / "new" / "renamed.pkl")
    with pytest.raises(FileNotFoundError, match=r"looked at: .*old/flame2023.pkl. Set FLAME_MODEL"):
        FlameHeadRig.from_pretrained(tmp_path / "rig")
    monkeypatch.setenv("FLAME_MODEL", str(tmp_path / "new"))
    assert FlameHeadRig.from_pretrained(tmp_path / "rig").num_faces == 10_144
    monkeypatch.delenv("FLAME_MODEL")
    given = tmp_path / "new" / "renamed.pkl"
    assert FlameHeadRig.from_pretrained(tmp_path / "rig", flame_path=given).num_faces == 10_144
    convert_flame(given, tmp_path / "new" / "mine.safetensors", version="2023")
    converted = tmp_path / "new" / "mine.safetensors"
    assert FlameHeadRig.from_pretrained(tmp_path / "rig", flame_path=converted).num_faces == 10_144
    given.unlink()
    for place in (converted, tmp_path / "new"):
        monkeypatch.setenv("FLAME_MODEL", str(place))
        assert FlameHeadRig.from_pretrained(tmp_path / "rig").num_faces == 10_144


def test_references_hold_from_any_folder(flame_file, tmp_path, monkeypatch):
    monkeypatch.chdir(flame_file.parent)
    FlameHeadRig.from_flame(flame_file.name).save_pretrained(tmp_path / "rig")
    monkeypatch.chdir(tmp_path)
    assert FlameHeadRig.from_pretrained("rig").num_faces == 10_144
    (tmp_path / "rig" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="must be a reference to FLAME, and lacks"):
        FlameHeadRig.from_pretrained("rig")


def test_another_file_is_not_taken_for_the_saved_one(flame_rig, tmp_path):
    flame_rig.save_pretrained(tmp_path / "rig")
    write_flame(tmp_path / "flame2023.pkl", fake_arrays(seed=1))
    with pytest.raises(ValueError, match="this is another file than the one the rig was saved"):
        FlameHeadRig.from_pretrained(tmp_path / "rig", flame_path=tmp_path / "flame2023.pkl")


def build_avatar(rig):
    g = torch.Generator().manual_seed(0)
    bindings = torch.randint(rig.num_faces, (30,), generator=g)
    means = rig.v_template[rig.faces[bindings]].mean(1)
    gaussians = Gaussians(
        means=means,
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(30, 1),
        scales=torch.full((30, 3), 0.01),
        opacities=torch.full((30,), 0.8),
        colors=torch.rand(30, 3, generator=g),
    )
    return Avatar(gaussians, bindings, rig, torch.randn(rig.num_betas, generator=g))


def test_an_avatar_on_flame_leaves_flame_where_it_is(flame_rig, tmp_path):
    avatar = build_avatar(flame_rig)
    avatar.save_pretrained(tmp_path / "me")
    names = {p.relative_to(tmp_path / "me").as_posix() for p in (tmp_path / "me").rglob("*")}
    assert names == {"avatar.json", "avatar.safetensors", "rig", "rig/config.json"}
    with safe_open(tmp_path / "me" / "avatar.safetensors", framework="numpy") as file:
        assert max(file.get_tensor(key).size for key in file.keys()) < 1000  # noqa: SIM118
    loaded = Avatar.from_pretrained(tmp_path / "me")
    params = random_params(flame_rig)
    for mode in ("lbs", "triangle"):
        first = avatar.animate(params, mode=mode).gaussians.means
        assert torch.equal(first, loaded.animate(params, mode=mode).gaussians.means)


@pytest.mark.parametrize("mode", ["lbs", "triangle"])
def test_a_rigid_turn_turns_the_gaussians(flame_rig, mode):
    avatar = build_avatar(flame_rig)
    turn = avatar.rig_params(global_orient=[0.3, -0.5, 0.2], transl=[0.1, 0.2, -0.1])
    still = animate_gaussians(
        avatar.gaussians, avatar.bindings, flame_rig, avatar.rig_params(), mode=mode
    )
    moved = animate_gaussians(avatar.gaussians, avatar.bindings, flame_rig, turn, mode=mode)
    R = torch.tensor(rotation(np.array([0.3, -0.5, 0.2])), dtype=torch.float32)
    root = (flame_rig.J_regressor @ flame_rig.canonical_vertices(avatar.betas[None])[0])[0]
    expected = (still.means[0] - root) @ R.T + root + torch.tensor([0.1, 0.2, -0.1])
    torch.testing.assert_close(moved.means[0], expected, atol=1e-5, rtol=0)


def test_a_pipeline_with_flame_is_saved_by_reference(flame_rig, tmp_path):
    tokenizer = PointTokenizer(num_bins=32, num_faces=flame_rig.num_faces)
    generator_config = recipes.build_generator_config("nano", tokenizer)
    pipe = AvatarPipeline(
        image_processor=recipes.build_image_processor("nano"),
        rig=flame_rig,
        conditioner=AvatarConditioner(recipes.build_conditioner_config("nano", tokenizer)),
        tokenizer=tokenizer,
        point_generator=PointGeneratorForCausalLM(generator_config),
        gaussian_decoder=GaussianDecoder(
            recipes.build_decoder_config("nano", tokenizer, generator_config)
        ),
        max_points=3,
    )
    pipe.save_pretrained(tmp_path)
    assert [path.name for path in (tmp_path / "rig").iterdir()] == ["config.json"]
    loaded = AvatarPipeline.from_pretrained(tmp_path)
    assert torch.equal(loaded.rig.v_template, flame_rig.v_template)
