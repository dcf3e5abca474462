# SPDX-License-Identifier: Apache-2.0
"""Features of the frozen networks: on disk, resumable, the same as computed on the spot."""

import logging
import shutil
from collections import namedtuple

import pytest
import torch

from pointillist_hf import AvatarConditioner, PointGeneratorForCausalLM
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training import frozen_features as module
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.frozen_features import FrozenFeatures, FrozenNetworks
from pointillist_hf.training.portraits import portrait_pixels
from pointillist_hf.training.recipes import (
    build_conditioner_config,
    build_generator_config,
    build_image_processor,
)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    config = SyntheticDatasetConfig(
        num_train=3, num_test=0, num_bins=64, num_skin_points=30, hair_budget=20, num_portraits=2,
        num_views=1, image_size=56, num_rig_points=8,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("features") / "people"
    return load_people(build_synthetic_dataset(place, config, show_progress=False), "train")


@pytest.fixture
def networks(people):
    torch.manual_seed(0)
    conditioner = AvatarConditioner(build_conditioner_config("nano", people.tokenizer))
    generator = PointGeneratorForCausalLM(build_generator_config("nano", people.tokenizer))
    return FrozenNetworks(conditioner.eval(), generator.eval(), build_image_processor("nano"))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "MAX_SHARD_BYTES", 1)


@torch.no_grad()
def test_they_are_what_the_networks_say(people, networks, tmp_path):
    features = FrozenFeatures(tmp_path / "f", people, portraits_per_person=2)
    features.prepare(networks)
    assert len(list((tmp_path / "f").glob("*.safetensors"))) == features.num_shards == 1
    for index, person in enumerate(people.persons):
        for number in range(2):
            which = features.portrait_of(index, number)
            pixels = portrait_pixels(person.portraits[which : which + 1] / 255, networks.processor)
            points = people.rig.sample_points(person.betas[None], 64)
            context = networks.conditioner(pixels, points)
            states = networks.generator.model(
                person.input_ids[None], context, use_cache=False
            ).last_hidden_state[0, 4:-4]
            found = features(index, number)
            assert {*found} == {"states", "context"}
            assert found["states"].dtype == torch.bfloat16
            assert found["states"].shape == (person.num_points, 4, 32)
            torch.testing.assert_close(
                found["states"].float(), states.unflatten(0, (-1, 4)), atol=0.03, rtol=0.01
            )
            torch.testing.assert_close(found["context"].float(), context[0], atol=0.03, rtol=0.01)
    assert not torch.equal(features(0, 0)["context"], features(0, 1)["context"])


def test_nothing_of_them_stays_in_memory(people, networks, tmp_path):
    features = FrozenFeatures(tmp_path / "f", people)
    features.prepare(networks)
    first = features(1)["states"]
    assert features(1)["states"] is not first
    held = [v for v in vars(features).values() if isinstance(v, torch.Tensor | dict)]
    assert not held


def test_an_interrupted_run_computes_what_is_missing(
    people, networks, tmp_path, small_shards, monkeypatch, caplog
):
    features = FrozenFeatures(tmp_path / "f", people)
    caplog.set_level(logging.INFO)
    features.prepare(networks)
    said = caplog.text
    assert "Features of 3 portraits" in said
    assert "GB are free" in said
    paths = sorted((tmp_path / "f").glob("*.safetensors"))
    assert len(paths) == 3
    kept = [path.read_bytes() for path in paths]
    paths[1].unlink()
    asked = []
    compute = FrozenNetworks.__call__
    monkeypatch.setattr(
        FrozenNetworks,
        "__call__",
        lambda self, people, index, *rest: (
            asked.append(index) or compute(self, people, index, *rest)
        ),
    )
    FrozenFeatures(tmp_path / "f", people).prepare(networks)
    assert asked == [1]
    assert [path.read_bytes() for path in paths] == kept


def test_those_of_another_generator_are_made_anew(people, networks, tmp_path, small_shards):
    features = FrozenFeatures(tmp_path / "f", people)
    features.prepare(networks)
    before = features(0)["states"]
    with torch.no_grad():
        networks.generator.model.norm.weight.mul_(2)
    again = FrozenFeatures(tmp_path / "f", people)
    again.prepare(networks)
    torch.testing.assert_close(again(0)["states"], 2 * before, atol=0.02, rtol=0.02)


def test_the_context_is_kept_only_where_it_is_looked_at(people, networks, tmp_path):
    whole, part = (FrozenFeatures(tmp_path / name, people) for name in "ab")
    whole.prepare(networks)
    blind = FrozenNetworks(
        networks.conditioner, networks.generator, networks.processor, keep_context=False
    )
    part.prepare(blind)
    assert {*part(0)} == {"states"}
    sizes = [sum(f.stat().st_size for f in folder.folder.iterdir()) for folder in (whole, part)]
    assert sizes[1] < sizes[0]
    # What is announced is what is written, but for the names of the tensors.
    for features, asked, size in ((whole, networks, sizes[0]), (part, blind, sizes[1])):
        announced = sum(features.size(asked, count) for count in people.point_counts)
        assert announced < size < 1.1 * announced + 4000


def test_a_disk_without_room_is_said_before(people, networks, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"must have room for the features of 3 portraits"):
        FrozenFeatures(tmp_path / "f", people).prepare(networks)
    assert not list((tmp_path / "f").glob("*.safetensors"))
