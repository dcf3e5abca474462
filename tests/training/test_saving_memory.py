# SPDX-License-Identifier: Apache-2.0
"""Layers that are computed twice, or compiled, learn what the others learn."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState

from pointillist_hf import GaussianDecoder, PointGeneratorForCausalLM
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.loop import save_memory_and_time
from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.recipes import build_decoder_config, build_generator_config
from pointillist_hf.training.stages import run_stage
from pointillist_hf.training.windows import cut_window

SAVING = LoopConfig("unused", gradient_checkpointing=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    config = SyntheticDatasetConfig(
        num_train=2, num_test=0, num_bins=64, num_skin_points=40, hair_budget=20, num_portraits=1,
        num_views=2, image_size=64, num_rig_points=8,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("saving") / "people"
    return build_synthetic_dataset(place, config, show_progress=False)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("size", ["nano", "nano-depth"])
@pytest.mark.parametrize("use_cache", [None, True, False])
def test_a_generator_is_checkpointed_whatever_its_cache(data, size, use_cache):
    """With the default, it makes a cache, which must not be filled twice."""
    people = load_people(data, "train")
    torch.manual_seed(0)
    generator = PointGeneratorForCausalLM(build_generator_config(size, people.tokenizer)).train()
    layout = people.tokenizer.layout
    ids, labels = (x[None] for x in cut_window(people.persons[0].input_ids, 0, 120, layout))
    options = {} if use_cache is None else {"use_cache": use_cache}
    inputs = {"labels": labels, "encoder_hidden_states": torch.randn(1, 5, 32), **options}
    expected = generator(ids, **inputs).loss
    expected.backward()
    wanted = gradients(generator)
    generator.activation_checkpointing_enable()
    found = generator(ids, **inputs).loss
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, gradient in gradients(generator).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-4)


def test_a_decoder_is_checkpointed(data):
    people = load_people(data, "train")
    torch.manual_seed(0)
    config = build_decoder_config(
        "nano", people.tokenizer, build_generator_config("nano", people.tokenizer)
    )
    decoder = GaussianDecoder(config).train()
    inputs = (torch.randn(1, 9, 3), torch.randn(1, 9, 4, 32), None, torch.randn(1, 5, 32))
    decoder(*inputs).colors.sum().backward()
    wanted = gradients(decoder)
    calls = []
    for layer in decoder.layers:
        layer.self_block.register_forward_pre_hook(lambda *_: calls.append(1))
    save_memory_and_time(decoder, SAVING)
    decoder(*inputs).colors.sum().backward()
    assert len(calls) == 2 * len(decoder.layers)  # once there, once back
    for name, gradient in gradients(decoder).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-4)


def run(data, output, **settings):
    loop = LoopConfig(
        str(output / "run"), max_steps=3, batch_size=2, learning_rate=3e-3, warmup_steps=0,
        show_progress=False, **settings,
    )  # fmt: skip
    run_stage("regressor", data, output, "nano", loop)
    rows = [json.loads(line) for line in (output / "run" / "log.jsonl").read_text().splitlines()]
    settings = json.loads((output / "run" / "settings.json").read_text())
    return [row["loss"] for row in rows], settings


def test_a_stage_saves_memory_and_keeps_its_losses(data, tmp_path):
    """The regressor, whose DINOv2 is trained; what is frozen is left alone."""
    plain, _ = run(data, tmp_path / "plain")
    saving, settings = run(data, tmp_path / "saving", gradient_checkpointing=True)
    assert saving == pytest.approx(plain, rel=1e-4)
    assert settings["gradient_checkpointing"]
    assert not settings["compile_layers"]


def test_the_launchers_precision_is_that_of_the_run(data, tmp_path, monkeypatch):
    plain, settings = run(data, tmp_path / "plain")
    assert settings["mixed_precision"] == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        half, settings = run(data, tmp_path / "half")
        assert settings["mixed_precision"] == "bf16"
        assert half != plain
        assert half == pytest.approx(plain, rel=0.05)
        AcceleratorState._reset_state(reset_partial_state=True)
        whole, settings = run(data, tmp_path / "whole", mixed_precision="no")
        assert settings["mixed_precision"] == "no"
        assert whole == plain
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_layers_are_compiled_one_by_one(data, monkeypatch):
    people = load_people(data, "train")
    generator = PointGeneratorForCausalLM(build_generator_config("nano-depth", people.tokenizer))
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module)))
    save_memory_and_time(generator, LoopConfig("unused", compile_layers=True))
    assert sorted(kind.__name__ for kind in compiled) == ["DepthLayer", "PointGeneratorLayer"]
