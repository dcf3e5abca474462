# SPDX-License-Identifier: Apache-2.0
"""Data sets are trained on from a folder, from the Hub, and from a disk larger than memory."""

import dataclasses

import pytest
import torch

from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training import dataset as dataset_module
from pointillist_hf.training.dataset import PersonsOnDisk, load_people, with_token_order
from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.stages import run_stage


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = SyntheticDatasetConfig(
        num_train=3, num_test=1, num_bins=64, num_skin_points=20, hair_budget=20, num_portraits=1,
        num_views=1, image_size=16, num_rig_points=8, identities_per_shard=2,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("source") / "people"
    return build_synthetic_dataset(place, config, show_progress=False)


def assert_same(people, others):
    assert len(people) == len(others)
    assert people.point_counts == others.point_counts
    for first, second in zip(people.persons, others.persons, strict=True):
        assert first.identity == second.identity
        assert torch.equal(first.input_ids, second.input_ids)
        assert torch.equal(first.portraits[0], second.portraits[0])
        for field in dataclasses.fields(first.view_params):
            one, two = (getattr(p.view_params, field.name) for p in (first, second))
            assert torch.equal(one, two)


def test_a_data_set_of_the_hub_is_that_of_the_folder(folder, hub, tmp_path):
    hub.publish("me/people", folder, "dataset")
    fetched = load_people("me/people", "train", cache_dir=tmp_path)
    assert_same(fetched, load_people(folder, "train"))
    assert_same(load_people("me/people", "test", cache_dir=tmp_path), load_people(folder, "test"))
    asked = [path for path in hub.requests if ".parquet" in path and path.startswith("GET")]
    assert asked
    hub.requests.clear()
    again = load_people("me/people", "train", cache_dir=tmp_path, local_files_only=True)
    assert_same(again, fetched)
    assert not hub.requests


def test_what_is_nowhere_is_named(hub, tmp_path):
    with pytest.raises(OSError, match=r"`me/nothing` is no folder here, and the Hub answered 404"):
        load_people("me/nothing", "train", cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder here, not in the cache"):
        load_people("me/nothing", "train", cache_dir=tmp_path, local_files_only=True)


def test_people_on_disk_are_those_in_memory(folder):
    kept, there = (load_people(folder, "train", on_disk=flag) for flag in (False, True))
    assert isinstance(there.persons, PersonsOnDisk)
    assert not isinstance(kept.persons, PersonsOnDisk)
    assert_same(there, kept)
    assert [p.identity for p in there.persons[1:]] == [p.identity for p in kept.persons[1:]]
    assert there.persons[-1].identity == kept.persons[-1].identity
    with pytest.raises(IndexError):
        there.persons[3]
    assert_same(with_token_order(there, "byzx"), with_token_order(kept, "byzx"))
    assert_same(
        load_people(folder, "train", token_order="byzx", on_disk=True),
        load_people(folder, "train", token_order="byzx"),
    )


def test_what_memory_cannot_hold_stays_on_disk(folder, monkeypatch):
    assert not isinstance(load_people(folder, "train").persons, PersonsOnDisk)
    monkeypatch.setattr(dataset_module, "free_memory", lambda: 1000.0)
    assert isinstance(load_people(folder, "train").persons, PersonsOnDisk)


def test_splits_that_share_people_are_not_trained_on(folder, tmp_path):
    """The files of one person in both splits, as splits by file names made them."""
    leaky = tmp_path / "leaky"
    leaky.mkdir()
    for path in folder.iterdir():
        if path.is_dir() or not path.name.startswith("test-"):
            (leaky / path.name).symlink_to(path)
    (leaky / "test-00000-of-00001.parquet").symlink_to(folder / "train-00000-of-00002.parquet")
    loop = LoopConfig(str(tmp_path / "run"), max_steps=1, show_progress=False)
    with pytest.raises(ValueError, match="`train` and `test` must not share people, and 2 are in"):
        run_stage("regressor", leaky, tmp_path / "out", "nano", loop)
