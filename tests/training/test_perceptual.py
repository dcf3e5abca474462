# SPDX-License-Identifier: Apache-2.0
"""The third term of Eq. 6: LPIPS with the user's weights, its stand-in under its own name."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.evaluation.metrics.lpips import lpips
from pointillist_hf.pretrained import lpips as lpips_module
from pointillist_hf.pretrained.lpips import LpipsNetwork
from pointillist_hf.pretrained.weights_files import MissingWeightsError
from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.losses import LossWeights, image_losses
from pointillist_hf.training.perceptual import FeatureDistance, LpipsDistance, open_perceptual
from pointillist_hf.training.stages import run_stage


@pytest.fixture(scope="module")
def encoder():
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(0)
    return Dinov2Model(config)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Files as torchvision and the package lpips have them, of random numbers."""
    torch.manual_seed(0)
    network = LpipsNetwork("alex")
    trunk = {f"features.{k}": v for k, v in network.features.state_dict().items()}
    heads = {f"lin{i}.model.1.weight": h[None, :, None, None] for i, h in enumerate(network.heads)}
    for table, tensors in (("TRUNK_FILES", trunk), ("HEAD_FILES", heads)):
        file = getattr(lpips_module, table)["alex"]
        torch.save(tensors, tmp_path / file.name)
        checksum = hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest()
        monkeypatch.setitem(getattr(lpips_module, table), "alex", replace(file, sha256=checksum))
    return tmp_path, network


def settings(**values):
    return LoopConfig("unused", **values)


def test_the_loss_is_the_metric_and_has_a_gradient(weights):
    folder, network = weights
    paths = {"lpips_weights": str(folder), "lpips_heads": str(folder)}
    distance = open_perceptual(settings(perceptual="lpips", **paths))
    assert isinstance(distance, LpipsDistance)
    rendered, target = torch.rand(2, 2, 64, 64, 3)
    rendered.requires_grad_()
    found = distance(rendered, target)
    expected = lpips(rendered.detach(), target, network).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    assert rendered.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in distance.parameters())
    step = 1e-2 * rendered.grad / rendered.grad.norm()
    with torch.no_grad():
        assert distance(rendered - step, target) < found


def test_it_is_weighed_as_in_equation_6(weights):
    rendered, target = torch.rand(2, 1, 64, 64, 3)
    terms = image_losses(rendered, target, LossWeights(), LpipsDistance(weights[1]))
    expected = terms["l1"] + 0.5 * terms["ssim"] + 0.1 * terms["perceptual"]
    assert terms["image"].item() == pytest.approx(expected.item())


def test_files_are_checked(weights):
    folder, _ = weights
    paths = {"lpips_weights": str(folder), "lpips_heads": str(folder)}
    path = folder / lpips_module.TRUNK_FILES["alex"].name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="must have a sha256 that begins with"):
        open_perceptual(settings(perceptual="lpips", **paths))


def test_what_is_missing_is_named(tmp_path, monkeypatch, encoder):
    monkeypatch.setenv("POINTILLIST_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for trunk, name in (("alex", "alexnet-owt-7be5be79.pth"), ("vgg", "vgg16-397923af.pth")):
        with pytest.raises(MissingWeightsError, match=f"`lpips` needs {name}"):
            open_perceptual(settings(perceptual="lpips", lpips_trunk=trunk), encoder)
    assert open_perceptual(settings(), encoder) is None
    with pytest.raises(ValueError, match="'lpips' or 'none' in this stage, got 'features'"):
        open_perceptual(settings(perceptual="features"))


def test_the_stand_in_is_zero_for_equal_images_and_has_a_gradient(encoder):
    distance = open_perceptual(settings(perceptual="features"), encoder)
    assert isinstance(distance, FeatureDistance)
    images = torch.rand(1, 32, 32, 3, requires_grad=True)
    assert distance(images, images.detach()).item() == pytest.approx(0, abs=1e-10)
    distance(images, torch.rand(1, 32, 32, 3)).backward()
    assert images.grad.abs().sum() > 0
    assert all(not p.requires_grad for p in distance.parameters())


def test_a_stage_has_the_term_and_says_so(weights, tmp_path):
    folder, _ = weights
    config = SyntheticDatasetConfig(
        num_train=1, num_test=0, num_bins=64, num_skin_points=40, hair_budget=20, num_portraits=1,
        num_views=1, image_size=64, num_rig_points=8, use_one_light=True,
    )  # fmt: skip
    data = build_synthetic_dataset(tmp_path / "data", config, show_progress=False)
    loop = LoopConfig(
        str(tmp_path / "run"), max_steps=1, batch_size=1, show_progress=False, perceptual="lpips",
        lpips_weights=str(folder), lpips_heads=str(folder),
    )  # fmt: skip
    run_stage("projected-decoder", data, tmp_path / "out", "nano", loop)
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    expected = row["l1"] + 0.5 * row["ssim"] + 0.1 * row["perceptual"]
    assert row["image"] == pytest.approx(expected, rel=1e-4)
    recipe = json.loads((tmp_path / "out" / "recipe-projected-decoder.json").read_text())
    assert recipe["settings"]["perceptual"] == "lpips"
    assert (recipe["recipe"], recipe["people"]) == ("embedded", 1)
    assert recipe["changed"] == ["learning_rate", "max_steps"]
