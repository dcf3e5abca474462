# SPDX-License-Identifier: Apache-2.0
"""Each metric through `evaluate.load`, without a network."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

evaluate = pytest.importorskip("evaluate")

from pointillist_hf.evaluation.evaluate_metrics import module_path  # noqa: E402
from pointillist_hf.evaluation.metrics.lpips import lpips  # noqa: E402
from pointillist_hf.evaluation.metrics.pixels import laplacian_l1, psnr, ssim  # noqa: E402
from pointillist_hf.pretrained import lpips as lpips_module  # noqa: E402
from pointillist_hf.pretrained.lpips import LpipsNetwork  # noqa: E402
from pointillist_hf.pretrained.weights_files import MissingWeightsError  # noqa: E402


def can_leave_the_network():
    tool = shutil.which("unshare")
    return bool(tool) and subprocess.run([tool, "-rn", "true"], capture_output=True).returncode == 0


ROOT = Path(__file__).parents[2]
NAMES = (
    "akd",
    "psnr",
    "ssim",
    "laplacian_l1",
    "lpips",
    "fid",
    "clip",
    "akd_468",
    "apd",
    "likeness",
)
# What evaluate and datasets do of their own.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """One for all tests: where evaluate copies scripts to is on the path from the first one on."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("POINTILLIST_WEIGHTS", "TORCH_HOME"):
            patch.setenv(name, str(folder / "none"))
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(folder / "modules"))
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", folder / "metrics")
        yield


def load(name, **kwargs):
    return evaluate.load(str(module_path(name)), **kwargs)


def pictures(count):
    values = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)
    return [Image.fromarray(one) for one in values]


def tensors(pictures):
    return torch.stack([torch.from_numpy(np.array(p)).float() / 255 for p in pictures])


def test_every_folder_has_its_script_and_card():
    for name in NAMES:
        folder = module_path(name)
        card = (folder / "README.md").read_text()
        assert f"title: {name}" in card and "- evaluate" in card and "## Limitations" in card
    with pytest.raises(ValueError, match="`name` must be one of akd, akd_468"):
        module_path("fvd")


@pytest.mark.parametrize("function", [psnr, ssim, laplacian_l1])
def test_figures_are_those_of_the_functions(function):
    name = function.__name__
    images, targets = pictures(4)[:2], pictures(4)[2:]
    metric = load(name)
    for image, target in zip(images, targets, strict=True):
        metric.add_batch(predictions=[image], references=[target])
    found = metric.compute()
    expected = function(tensors(images), tensors(targets))
    assert found["values"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert found[name] == pytest.approx(expected.mean().item(), abs=1e-5)
    assert found["num_missed"] == 0
    assert metric.features["predictions"] and metric.citation and metric.description


@pytest.mark.parametrize("name", ["lpips", "fid", "clip", "apd", "likeness"])
def test_missing_weights_are_named(name):
    with pytest.raises(MissingWeightsError, match=f"`{name}` needs"):
        load(name)


def test_lpips_takes_the_users_file(tmp_path, monkeypatch):
    pytest.importorskip("torchmetrics")
    network = LpipsNetwork("alex")
    trunk = {f"features.{k}": v for k, v in network.features.state_dict().items()}
    file = tmp_path / "alexnet-owt-7be5be79.pth"
    torch.save(trunk, file)
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    known = replace(lpips_module.TRUNK_FILES["alex"], sha256=checksum)
    monkeypatch.setitem(lpips_module.TRUNK_FILES, "alex", known)
    images, targets = pictures(2)[:1], pictures(2)[1:]
    found = load("lpips", weights=file).compute(predictions=images, references=targets)
    own = LpipsNetwork.read("alex", trunk_path=file)
    expected = lpips(tensors(images), tensors(targets), own).item()
    assert found["lpips"] == pytest.approx(expected, rel=1e-5) and expected > 0


def test_keypoints_of_a_shifted_face_and_of_none():
    photograph = Image.open(ROOT / "examples/images/astronaut.jpg").convert("RGB")
    face = photograph.crop((96, 0, 352, 256)).resize((512, 512), Image.Resampling.BICUBIC)
    moved, empty = ImageChops.offset(face, 5, 0), Image.new("RGB", (512, 512))
    tracker = ROOT / "model_cards/pointillist-tiny/portrait_tracker"
    metric = load("akd_468", tracker=tracker)
    found = metric.compute(predictions=[moved, empty], references=[face, face])
    assert found["akd_468"] == pytest.approx(5, abs=0.3) and found["num_missed"] == 1


def test_akd_takes_landmarks_of_another_program():
    points = np.random.default_rng(0).uniform(0, 256, (3, 478, 3)).astype(np.float32)
    moved = points + np.float32([3, 4, 50])
    moved[2] = np.nan
    metric = load("akd", size=256)
    metric.add_batch(predictions=moved, references=points)
    found = metric.compute()
    assert found["akd"] == pytest.approx(10, abs=1e-3) and found["num_missed"] == 1
    assert found["values"][:2] == pytest.approx([10, 10], abs=1e-3)
    assert metric.features["references"].shape == (478, 3)
    assert "[478, 3]" in metric.inputs_description


@pytest.mark.skipif(not can_leave_the_network(), reason="needs a network of its own")
def test_every_module_loads_without_a_network(tmp_path):
    program = f"""
import evaluate
from pointillist_hf.evaluation.evaluate_metrics import module_path
for name in {NAMES!r}:
    try:
        print(name, evaluate.load(str(module_path(name))).name)
    except FileNotFoundError as error:
        print(name, "needs" if f"`{{name}}` needs" in str(error) else error)
"""
    places = {name: str(tmp_path) for name in ("HF_HOME", "TORCH_HOME", "POINTILLIST_WEIGHTS")}
    ended = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
    )
    found = dict(line.split(" ", 1) for line in ended.stdout.splitlines())
    unloaded = {name for name, word in found.items() if word == "needs"}
    assert found.keys() == {*NAMES}, ended.stderr
    assert unloaded == {"lpips", "fid", "clip", "apd", "likeness"}, found
