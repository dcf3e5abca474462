# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
import torch
from datasets import load_dataset

from pointillist_hf.data.population.photography import pose_subject, sample_motion, take_views
from pointillist_hf.data.population.subject import build_subject
from pointillist_hf.data.tokens.dataset import load_token_dataset
from pointillist_hf.data.tokens.rows import picture_tensor, row_cameras, row_params
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.models.tokenization_points import PointTokenizer
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig

CONFIG = SyntheticDatasetConfig(
    num_train=2,
    num_test=1,
    num_bins=64,
    num_skin_points=60,
    hair_budget=40,
    num_portraits=1,
    num_views=3,
    image_size=32,
    identities_per_shard=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset")
    return build_synthetic_dataset(path, CONFIG, show_progress=False)


def test_load_dataset_reads_the_folder(folder, tmp_path):
    splits = load_dataset(str(folder), cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "test": 1}
    row = splits["train"].with_format("torch")[0]
    assert row["input_ids"].dtype == torch.int64
    streamed = next(iter(load_dataset(str(folder), split="test", streaming=True)))
    assert streamed["identity"] == splits["test"][0]["identity"]


def test_the_tokens_decode_to_the_points_of_the_rig(folder):
    tokenizer = PointTokenizer.from_pretrained(folder / "tokenizer")
    for row in load_token_dataset(folder, "train"):
        points = tokenizer.decode_points(torch.tensor(row["input_ids"]))
        assert len(points) == row["num_points"]
        assert torch.equal(tokenizer.encode_points(points), torch.tensor(row["input_ids"]))
        assert points.bindings.max() < ProceduralHeadRig("low").num_faces


def test_cameras_and_parameters_put_the_head_where_the_picture_shows_it(folder):
    rig = ProceduralHeadRig.from_pretrained(folder / "rig")
    row = load_token_dataset(folder, "train")[0]
    vertices, cameras = rig(row_params(row, "view")), row_cameras(row, "view")
    for view, image in enumerate(row["views"]):
        alpha = picture_tensor(image)[..., 3]
        pixels, _ = project_points(vertices[view], cameras[view : view + 1])
        pixels = pixels[0].floor().long().clamp(0, CONFIG.image_size - 1)
        covered = alpha[pixels[:, 1], pixels[:, 0]] > 0
        assert covered.float().mean() > 0.97


def test_an_interrupted_build_keeps_its_shards(folder):
    shards = sorted(folder.glob("*.parquet"))
    before = {shard.name: shard.stat().st_mtime_ns for shard in shards[1:]}
    content = shards[0].read_bytes()
    shards[0].unlink()
    build_synthetic_dataset(folder, CONFIG, show_progress=False)
    assert {s.name: s.stat().st_mtime_ns for s in sorted(folder.glob("*.parquet"))[1:]} == before
    assert shards[0].read_bytes() == content
    assert not list(folder.glob("*.partial"))


def test_another_configuration_is_refused(folder):
    other = dataclasses.replace(CONFIG, num_views=4)
    with pytest.raises(ValueError, match="another configuration"):
        build_synthetic_dataset(folder, other, show_progress=False)


def test_a_missing_split_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="make_dataset"):
        load_token_dataset(tmp_path, "train")


@pytest.mark.parametrize("name", ["num_train", "num_portraits", "identities_per_shard"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ValueError, match=name):
        SyntheticDatasetConfig(**{name: 0})


def test_the_population_moves_as_the_rig_does():
    rig = ProceduralHeadRig("low")
    subject = build_subject(7, resolution="low", density=0.05)
    betas = torch.tensor(subject.identity.betas, dtype=torch.float32)
    params = sample_motion(rig, betas, 2, np.random.default_rng(0), strength=1.0)
    for posed, expected in zip(pose_subject(subject, rig, params), rig(params), strict=True):
        moved = torch.tensor(posed.vertices, dtype=torch.float32) / 100
        assert torch.allclose(moved, expected, atol=1e-6)


def test_every_other_view_is_at_rest():
    rig = ProceduralHeadRig("low")
    views = take_views(build_subject(7, resolution="low", density=0.05), rig, 4, size=16)
    moving = views.rig_params.poses.abs().sum((1, 2)) + views.rig_params.expression.abs().sum(1)
    assert (moving[::2] == 0).all()
    assert (moving[1::2] > 0).all()


def test_two_folders_of_one_name_are_two_data_sets(tmp_path):
    sizes = {}
    for size in (16, 24):
        config = dataclasses.replace(CONFIG, num_train=1, num_test=0, num_views=1, image_size=size)
        folder = build_synthetic_dataset(tmp_path / str(size) / "data", config, show_progress=False)
        sizes[size] = load_token_dataset(folder, "train")[0]["views"][0].size
    assert sizes == {16: (16, 16), 24: (24, 24)}


def test_clouds_and_portraits_alone(tmp_path):
    config = dataclasses.replace(CONFIG, num_train=1, num_test=0, num_views=0, num_portraits=2)
    folder = build_synthetic_dataset(tmp_path / "data", config, show_progress=False)
    row = load_token_dataset(folder, "train")[0]
    assert row["views"] == [] and len(row["portraits"]) == 2
    assert len(row_params(row, "view")) == len(row_cameras(row, "view")) == 0
