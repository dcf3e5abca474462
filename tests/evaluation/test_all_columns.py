# SPDX-License-Identifier: Apache-2.0
"""Whoever has all files gets all columns; here the networks are random ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_networks import trust, write_all
from PIL import Image, ImageFilter

from pointillist_hf.evaluation import scoring
from pointillist_hf.evaluation.benchmark_run import EvaluationConfig, evaluate_renders
from pointillist_hf.evaluation.instruments import InstrumentPaths
from pointillist_hf.evaluation.manifest import read_manifest
from pointillist_hf.evaluation.metric_catalogue import CATALOGUE, TABLE_1
from pointillist_hf.pretrained.weights_files import file_sha256

pytest.importorskip("torchmetrics")
evaluate = pytest.importorskip("evaluate")
from pointillist_hf.evaluation.evaluate_metrics import module_path  # noqa: E402

TRACKER = Path(__file__).parents[2] / "model_cards/pointillist-tiny/portrait_tracker"
pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.filterwarnings(f"ignore::{name}")
        for name in ("DeprecationWarning", "FutureWarning", "ResourceWarning")
    ),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_all(folder)
    return folder


@pytest.fixture(autouse=True)
def trusted(weights, monkeypatch):
    trust(weights, monkeypatch)
    scoring._instruments.cache_clear()
    yield
    scoring._instruments.cache_clear()


@pytest.fixture
def systems(face_benchmark, tmp_path):
    """The targets themselves, and the targets blurred."""
    for item in read_manifest(face_benchmark).items:
        target = face_benchmark / f"targets/{item.target}.png"
        for name in ("truth", "blurred"):
            (tmp_path / name).mkdir(exist_ok=True)
        shutil.copy(target, tmp_path / f"truth/{item.item_id}.png")
        with Image.open(target) as picture:
            blurred = picture.filter(ImageFilter.GaussianBlur(1.5))
        blurred.save(tmp_path / f"blurred/{item.item_id}.png")
    return {name: tmp_path / name for name in ("truth", "blurred")}


def write_landmarks(folders, path):
    """As if MediaPipe had run: it moves with each picture by a pixel or so."""
    rng = np.random.default_rng(0)
    base = rng.uniform(40, 120, (478, 3))
    files = [file for folder in folders for file in sorted(folder.glob("*.png"))]
    marks = {file_sha256(file): base + rng.normal(0, 1, (478, 3)) for file in files}
    np.savez(path, **{name: m.astype(np.float32) for name, m in marks.items()})
    return path


def test_every_column_of_table_1_is_filled(face_benchmark, systems, weights, tmp_path):
    folders = [face_benchmark / "targets", *systems.values()]
    landmarks = write_landmarks(folders, tmp_path / "landmarks.npz")
    paths = InstrumentPaths(tracker=TRACKER)
    config = EvaluationConfig(paths, landmarks, show_progress=False)
    results = evaluate_renders(face_benchmark, systems, tmp_path / "out", config)
    assert not results["missing_weights"]
    for task, names in TABLE_1.items():
        for name in names:
            truth, blurred = (results["figures"][s][task][name]["mean"] for s in systems)
            best = 1 if CATALOGUE[name].higher_is_better else 0
            if task == "self" or name in ("akd", "apd"):
                assert truth == pytest.approx(best, abs=2e-3)
                assert abs(blurred - best) > abs(truth - best)
    files = {file["file"]: file for files in results["weights"].values() for file in files}
    assert files["alexnet-owt-7be5be79.pth"]["checked"]
    assert not files["clip-vit-large-patch14/model.safetensors"]["checked"]
    text = (tmp_path / "out/results.md").read_text()
    assert "n/a" not in text and "FID@8 (self), FID@8 (cross)" in text
    assert "Real pictures against other real ones" in text and "Not measured" not in text
    # Unbiased for two sets of one distribution, and lower for two equal ones.
    assert results["figures"]["truth"]["self"]["kid"]["mean"] < 0


def test_modules_give_what_the_comparison_gives(face_benchmark, systems, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    items = read_manifest(face_benchmark).of_task("self")[:3]
    renders = [str(systems["blurred"] / f"{item.item_id}.png") for item in items]
    targets = [str(face_benchmark / f"targets/{item.target}.png") for item in items]
    one = {"predictions": renders, "references": targets}
    same = {"predictions": targets, "references": targets}
    for name in ("lpips", "fid", "clip", "apd", "likeness", "akd_468"):
        metric = evaluate.load(str(module_path(name)))
        blurred, equal = (metric.compute(**pairs)[name] for pairs in (one, same))
        best = 1 if name == "clip" else 0
        assert equal == pytest.approx(best, abs=2e-3), name
        assert abs(blurred - best) > 1e-5, name
    assert torch.get_default_dtype() is torch.float32
