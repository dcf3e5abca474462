# SPDX-License-Identifier: Apache-2.0
"""Whole things of every kind, made once, from which each row of the tables damages a copy."""

import shutil

import pytest
from capture_files import tiny_capture

from pointillist_hf.data.captures.writing import write_capture
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.runner import fit_capture
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset

DATA = SyntheticDatasetConfig(
    num_train=2, num_test=0, num_skin_points=40, hair_budget=20, num_portraits=1, num_views=2,
    image_size=32, num_rig_points=64, num_bins=64,
)  # fmt: skip


@pytest.fixture(scope="session")
def whole(tmp_path_factory, tiny_pipeline, tiny_avatar, portrait):
    """Folder with pipeline, avatar, data, captures, fits and face.png; not to be written to."""
    root = tmp_path_factory.mktemp("whole")
    tiny_pipeline.save_pretrained(root / "pipeline")
    tiny_avatar.save_pretrained(root / "avatar")
    build_synthetic_dataset(root / "data", DATA, show_progress=False)
    write_capture(tiny_capture(), root / "captures" / "anna")
    config = FitConfig.preset("fast", num_steps=2)
    fit_capture(root / "captures" / "anna", root / "fits" / "anna", config, show_progress=False)
    portrait.save(root / "face.png")
    (root / "take.csv").write_text("jawOpen\n0\n1\n")
    return root


@pytest.fixture
def room(whole, tmp_path):
    """A place to damage things in: `room.copy("avatar")` is a copy of one of them."""
    return Room(whole, tmp_path)


class Room:
    def __init__(self, whole, place):
        self.whole, self.place = whole, place

    def __truediv__(self, name):
        return self.place / name

    def copy(self, name):
        source, target = self.whole / name, self.place / name
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        return target

    def text(self, name, content):
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
