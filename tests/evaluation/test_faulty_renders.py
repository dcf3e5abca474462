# SPDX-License-Identifier: Apache-2.0
"""A folder with all faults at once: each is reported by name, and no figure moves unsaid."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointillist_hf.evaluation.benchmark_run import EvaluationConfig, evaluate_renders
from pointillist_hf.evaluation.face_reading import read_landmark_file
from pointillist_hf.evaluation.instruments import InstrumentPaths
from pointillist_hf.evaluation.manifest import read_manifest
from pointillist_hf.evaluation.metrics.pixels import psnr
from pointillist_hf.evaluation.renders import FAULTS, LEFT_OUT, load_render
from pointillist_hf.pretrained.weights_files import file_sha256

TRACKER = Path(__file__).parents[2] / "model_cards/pointillist-tiny/portrait_tracker"


def noise(seed, size=(64, 64), bands=3):
    shape = (size[1], size[0]) if bands == 1 else (size[1], size[0], bands)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


@pytest.fixture
def clean(benchmark_folder, tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    for seed, item in enumerate(read_manifest(benchmark_folder).items):
        noise(seed).save(folder / f"{item.item_id}.png")
    return folder


@pytest.fixture
def faulty(clean, benchmark_folder):
    """The folder, and which fault is where."""
    folder = shutil.copytree(clean, clean.parent / "faulty")
    items = read_manifest(benchmark_folder).items
    ids = [item.item_id for item in items]
    files = [folder / f"{item_id}.png" for item_id in ids]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-500])
    noise(2, (64, 48)).save(files[2])
    noise(3, (96, 96)).save(files[3])
    noise(4, bands=4).save(files[4])
    noise(5, bands=1).save(files[5])
    noise(6).save(files[6].with_suffix(".jpg"))
    files[6].unlink()
    Image.new("RGB", (64, 64), "white").save(files[7])
    shutil.copy(files[9], files[10])
    shutil.copy(benchmark_folder / f"targets/{items[11].target}.png", files[11])
    noise(99).save(folder / "of nobody.png")
    kinds = ["missing", "unreadable", "wrong shape", "resized", "transparent", "not rgb", "lossy"]
    expected = {*zip(kinds, ids[:7], strict=True)}
    expected |= {("blank", ids[7]), ("repeated", ids[10]), ("copied", ids[11])}
    return folder, expected | {("extra", "of nobody.png")}


def by_hand(folder, benchmark, items):
    """Mean PSNR of people, of the files as they lie there."""
    people = {}
    for item in items:
        file = next(folder.glob(f"{item.item_id}.*"))
        image = load_render(file, 64, (1.0, 1.0, 1.0))
        target = load_render(benchmark / f"targets/{item.target}.png", 64, (1.0, 1.0, 1.0))
        people.setdefault(item.identity, []).append(psnr(image[None], target[None]).item())
    return np.mean([np.mean(values) for values in people.values()])


def test_every_fault_is_reported_and_moves_no_figure_unsaid(
    faulty, clean, benchmark_folder, tmp_path
):
    folder, expected = faulty
    config = EvaluationConfig(InstrumentPaths(tracker=TRACKER), show_progress=False)
    systems = {"faulty": folder, "clean": clean}
    results = evaluate_renders(benchmark_folder, systems, tmp_path / "out", config)
    found = [(f["kind"], f["name"]) for f in results["faults"]["faulty"]]
    faceless = {pair for pair in found if pair[0] == "no face"}
    assert {*found} - faceless == expected and len(found) == len({*found})
    # Noise has no face; the others of the folder are not looked at by the detector.
    lost = {name for kind, name in expected if kind in LEFT_OUT}
    usable = {item.item_id for item in read_manifest(benchmark_folder).items} - lost
    assert {name for _, name in faceless} <= usable and len(faceless) >= len(usable) - 1
    assert {kind for kind, _ in found} == {*FAULTS}
    assert {f["kind"] for f in results["faults"]["clean"]} == {"no face"}
    text = (tmp_path / "out/results.md").read_text()
    listed = text[text.index("Which ones:") :]
    assert all(f"faulty, {kind}: {name}" in listed for kind, name in expected)
    # What is left out is so for both; what is kept counts as it is.
    items = [i for i in read_manifest(benchmark_folder).of_task("self") if i.item_id in usable]
    for system, place in systems.items():
        figure = results["figures"][system]["self"]["psnr"]
        assert figure["num_items"] == len(items) < 8
        assert figure["mean"] == pytest.approx(by_hand(place, benchmark_folder, items), abs=1e-4)
    assert f"{len(usable)} of 16 items" in text


def test_landmarks_of_pictures_that_have_changed_are_refused(clean, benchmark_folder, tmp_path):
    manifest = read_manifest(benchmark_folder)
    pictures = [*clean.glob("*.png"), *(benchmark_folder / "targets").glob("*.png")]
    rng = np.random.default_rng(0)
    marks = {file_sha256(p): rng.uniform(0, 64, (478, 3)).astype(np.float32) for p in pictures}
    first = clean / f"{manifest.items[0].item_id}.png"
    target = benchmark_folder / f"targets/{manifest.items[0].target}.png"
    marks[file_sha256(first)] = marks[file_sha256(target)] + np.float32([3, 4, 9])
    np.savez(tmp_path / "landmarks.npz", **marks)
    config = EvaluationConfig(landmarks=tmp_path / "landmarks.npz", show_progress=False)
    results = evaluate_renders(benchmark_folder, {"a": clean}, tmp_path / "out", config)
    figures = results["figures"]["a"]["self"]
    # The picture has 64 pixels, and AKD is in those of 512.
    assert "mean" in figures["akd_aligned"] and figures["akd"]["num_items"] == 8
    text = (tmp_path / "out/index.html").read_text()
    assert "AKD 40.00 px" in text
    noise(77).save(first)
    with pytest.raises(ValueError, match=r"lacks 1 of \d+, such as .*run examples/"):
        evaluate_renders(benchmark_folder, {"a": clean}, tmp_path / "out", config)
    np.savez(tmp_path / "landmarks.npz", a=np.zeros((468, 3)))
    with pytest.raises(ValueError, match=r"`a` in .* must have shape \(478, 3\)"):
        read_landmark_file(tmp_path / "landmarks.npz")
