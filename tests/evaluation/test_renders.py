# SPDX-License-Identifier: Apache-2.0
"""Folders of renders: every kind of fault is found, and named."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from pointillist_hf.evaluation.manifest import read_manifest
from pointillist_hf.evaluation.renders import FAULTS, find_renders, load_render


@pytest.fixture
def manifest(benchmark_folder):
    return read_manifest(benchmark_folder)


def noise(seed, size=(64, 64), mode="RGB"):
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(manifest, tmp_path):
    """Renders without a fault."""
    for seed, item in enumerate(manifest.items):
        noise(seed).save(tmp_path / f"{item.item_id}.png")
    return tmp_path


def kinds(folder, manifest):
    return find_renders("system", folder, manifest).count_faults()


def test_good_renders_have_no_faults(folder, manifest):
    found = find_renders("system", folder, manifest)
    assert not found.faults and found.files.keys() == {i.item_id for i in manifest.items}


def test_every_fault_is_named(folder, manifest, benchmark_folder):
    first, second, *_ = (folder / f"{item.item_id}.png" for item in manifest.items)
    item = manifest.items[0]

    def expect(kind, *, usable, name=item.item_id):
        found = find_renders("system", folder, manifest)
        assert [(f.kind, f.name) for f in found.faults] == [(kind, name)]
        assert (item.item_id in found.files) == usable
        assert kind in FAULTS
        noise(0).save(first)

    first.unlink()
    expect("missing", usable=False)
    first.write_bytes(first.read_bytes()[:-200])
    expect("unreadable", usable=False)
    noise(0, (64, 48)).save(first)
    expect("wrong shape", usable=False)
    noise(0, (32, 32)).save(first)
    expect("resized", usable=True)
    noise(0, mode="RGBA").save(first)
    expect("transparent", usable=True)
    noise(0, mode="L").save(first)
    expect("not rgb", usable=True)
    Image.new("RGB", (64, 64)).save(first)
    expect("blank", usable=True)
    shutil.copy(benchmark_folder / "targets" / f"{item.target}.png", first)
    expect("copied", usable=True)
    shutil.copy(first, second)
    expect("repeated", usable=True, name=manifest.items[1].item_id)
    noise(1).save(second)
    first.unlink()
    noise(0).save(first.with_suffix(".jpg"))
    found = find_renders("system", folder, manifest)
    assert [f.kind for f in found.faults] == ["lossy"]
    noise(0).save(first)
    expect("extra", usable=True, name=f"{item.item_id}.jpg")


def test_a_list_of_files_takes_other_names(folder, manifest):
    rows = ["item_id,file"]
    for number, item in enumerate(manifest.items):
        (folder / f"{item.item_id}.png").rename(folder / f"frame {number}.png")
        rows.append(f"{item.item_id},frame {number}.png")
    assert kinds(folder, manifest)["missing"] == len(manifest.items)
    (folder / "renders.csv").write_text("\n".join(rows))
    (folder / "system.json").write_text(json.dumps({"seconds_per_avatar": 3}))
    found = find_renders("system", folder, manifest)
    assert not found.faults and found.about == {"seconds_per_avatar": 3}
    (folder / "renders.csv").write_text("a,b\n1,2")
    with pytest.raises(ValueError, match="columns item_id and file"):
        find_renders("system", folder, manifest)
    with pytest.raises(FileNotFoundError, match="`renders` of system must be a folder"):
        find_renders("system", folder / "none", manifest)


def test_pictures_are_brought_to_the_manifest(tmp_path):
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    clear.paste((0, 255, 0, 255), (0, 0, 16, 32))
    clear.save(tmp_path / "a.png")
    image = load_render(tmp_path / "a.png", 64, (0.0, 0.0, 1.0))
    assert image.shape == (64, 64, 3)
    assert torch.allclose(image[30, 5], torch.tensor([0.0, 1.0, 0.0]))
    assert torch.allclose(image[30, 60], torch.tensor([0.0, 0.0, 1.0]))
    deep = np.full((64, 64), 65535 // 2, np.uint16)
    Image.fromarray(deep).save(tmp_path / "b.png")
    assert load_render(tmp_path / "b.png", 64, (1, 1, 1)).mean().item() == pytest.approx(0.5, 0.01)
