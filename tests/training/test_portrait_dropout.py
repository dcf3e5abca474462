# SPDX-License-Identifier: Apache-2.0
"""Rows of the generator's training whose portrait is hidden, and their head is not."""

import json

import pytest
import torch

from pointillist_hf import AvatarConditioner, PointGeneratorForCausalLM
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.portraits.image_processing_portrait import PortraitImageProcessor
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.generator_checks import generator_checks
from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.recipes import (
    build_conditioner_config,
    build_generator_config,
    build_image_processor,
)
from pointillist_hf.training.train_generator import train_generator

DATA = SyntheticDatasetConfig(
    num_train=2, num_test=0, num_bins=64, num_skin_points=30, hair_budget=10,
    num_portraits=2, num_views=0, image_size=32, use_snapshots=True, num_rig_points=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hidden") / "data"
    return load_people(
        build_synthetic_dataset(folder, DATA, show_progress=False), "train", token_order="byzx"
    )


def train(people, folder, processor=None, **options):
    """The log of a run, and what the conditioner was given in each of its steps."""
    options = {"max_steps": 4, "batch_size": 2, "schedule": "constant", **options}
    loop = LoopConfig(str(folder), show_progress=False, save_steps=2, **options)
    processor = processor or build_image_processor("nano")
    torch.manual_seed(0)
    conditioner = AvatarConditioner(build_conditioner_config("nano", people.tokenizer))
    generator = PointGeneratorForCausalLM(build_generator_config("nano-anchored", people.tokenizer))
    inputs = []
    conditioner.register_forward_pre_hook(
        lambda module, args: inputs.append(args) if module.training else None
    )
    checks = generator_checks(None, people, processor, loop)
    train_generator(conditioner, generator, people, processor, loop, checks)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return log, inputs


def test_without_portraits_training_does_not_depend_on_them(people, tmp_path):
    other = PortraitImageProcessor(
        **{**build_image_processor("nano").to_dict(), "image_mean": [0.9] * 3}
    )

    def losses(share, name):
        logs = [
            train(people, tmp_path / f"{name}{i}", processor, portrait_dropout=share, eval_steps=4)[
                0
            ]
            for i, processor in enumerate((None, other))
        ]
        # Nothing is hidden when the run is watched.
        watched = [log[-1].pop("validation_nats_per_point") for log in logs]
        assert watched[0] != watched[1]
        return [[row["loss"] for row in log] for log in logs]

    first, second = losses(1.0, "hidden")
    assert first == second
    first, second = losses(0.0, "shown")
    assert first != second


def test_the_share_changes_nothing_else_in_the_rows(people, tmp_path):
    whole, shown = train(people, tmp_path / "none", portrait_dropout=0.0)
    assert train(people, tmp_path / "default")[0] == whole
    options = {"portrait_dropout": 0.4, "max_steps": 8, "batch_size": 4}
    _, some = train(people, tmp_path / "some", **options)
    _, none = train(people, tmp_path / "as many", **{**options, "portrait_dropout": 0.0})
    assert all(hidden is None for _, _, hidden in shown + none)
    for before, after in zip(none, some, strict=True):
        assert all(torch.equal(*pair) for pair in zip(before[:2], after[:2], strict=True))
    hidden = torch.cat([hidden for _, _, hidden in some])
    assert hidden.shape == (32,) and hidden.dtype == torch.bool
    assert 6 <= int(hidden.sum()) <= 20


def test_the_same_rows_are_hidden_when_a_run_goes_on(people, tmp_path):
    options = {"portrait_dropout": 0.5, "max_steps": 6}
    whole, _ = train(people, tmp_path / "whole", **options)
    train(people, tmp_path / "parts", **{**options, "max_steps": 2})
    assert train(people, tmp_path / "parts", **options)[0] == whole
    with pytest.raises(ValueError, match=r"`portrait_dropout` was 0\.5 when the run .* began"):
        train(people, tmp_path / "parts", **{**options, "portrait_dropout": 0.1, "max_steps": 8})


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_nothing_and_all(share, tmp_path):
    with pytest.raises(ValueError, match="`portrait_dropout` must"):
        LoopConfig(str(tmp_path), portrait_dropout=share)
