# SPDX-License-Identifier: Apache-2.0
"""The three stages at their smallest, and what comes of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from pointillist_hf import (
    AvatarConditioner,
    AvatarPipeline,
    GaussianDecoder,
    PointGeneratorForCausalLM,
    PointTokenizer,
    RigRegressor,
)
from pointillist_hf.data.synthetic_dataset import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.evaluation.identification import identify_people
from pointillist_hf.evaluation.metrics import pairwise_errors, rank_correlation
from pointillist_hf.rendering.similarity import psnr
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.loop import LoopConfig
from pointillist_hf.training.portraits import portrait_pixels
from pointillist_hf.training.recipes import build_image_processor
from pointillist_hf.training.stages import run_stage
from pointillist_hf.training.train_decoder import windowed_states

EXAMPLES = Path(__file__).parent.parent / "examples"
DATA = SyntheticDatasetConfig(
    num_train=2,
    num_test=1,
    num_bins=64,
    num_skin_points=60,
    hair_budget=30,
    num_portraits=2,
    num_views=3,
    image_size=64,
)
STEPS = {"regressor": 30, "generator": 60, "decoder": 80}


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data set, and components after a few steps of every stage."""
    folder = tmp_path_factory.mktemp("stages")
    build_synthetic_dataset(folder / "data", DATA, show_progress=False)
    for stage, steps in STEPS.items():
        loop = LoopConfig(
            str(folder / "out" / f"{stage}_run"),
            max_steps=steps,
            batch_size=2,
            learning_rate=3e-3,
            warmup_steps=5,
            show_progress=False,
        )
        run_stage(stage, folder / "data", folder / "out", "nano", loop)
    return folder


@pytest.fixture(scope="module")
def pipe(trained):
    out, people = trained / "out", load_people(trained / "data", "train")
    return AvatarPipeline(
        image_processor=build_image_processor("nano"),
        rig=people.rig,
        conditioner=AvatarConditioner.from_pretrained(out / "conditioner"),
        tokenizer=people.tokenizer,
        point_generator=PointGeneratorForCausalLM.from_pretrained(out / "point_generator"),
        gaussian_decoder=GaussianDecoder.from_pretrained(out / "gaussian_decoder"),
        rig_regressor=RigRegressor.from_pretrained(out / "rig_regressor"),
        max_points=80,
        grammar="full",
    )


@pytest.mark.parametrize("stage", STEPS)
def test_every_stage_learns(trained, stage):
    values = losses(trained / "out" / f"{stage}_run")
    assert len(values) == STEPS[stage]
    assert sum(values[-5:]) < 0.9 * sum(values[:5])


def test_the_protocol_runs_on_the_trained_pipeline(pipe):
    result = identify_people(pipe, DATA, num_people=2, num_mean=2, size=32, show_progress=False)
    assert result.pictures.shape == (2, 3, 32, 32, 3)
    assert torch.isfinite(result.psnr).all()
    assert 0 <= result.num_correct <= 2
    assert (result.num_points <= 80).all()


@pytest.mark.slow
@pytest.mark.parametrize("stage", STEPS)
def test_two_processes_train_a_stage_like_one(stage, trained, tmp_path):
    """Every parameter takes part on every process, and only one of them writes."""
    for processes in (1, 2):
        out = tmp_path / str(processes)
        shutil.copytree(trained / "out", out, ignore=shutil.ignore_patterns("*_run"))
        launch = (sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}")
        options = f"--stage {stage} --size nano --max_steps 4 --batch_size 2 --save_steps 4"
        folders = ("--data", str(trained / "data"), "--output", str(out))
        subprocess.run(
            [*launch, str(EXAMPLES / "train.py"), *options.split(), *folders],
            check=True,
            capture_output=True,
            env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        )
    one, two = (losses(tmp_path / name / f"{stage}_run") for name in "12")
    assert two == pytest.approx(one, rel=1e-3)


def test_windowed_states_are_those_of_the_full_forward(trained):
    people = load_people(trained / "data", "train")
    folder = trained / "out" / "point_generator"
    generator = PointGeneratorForCausalLM.from_pretrained(folder).double().eval()
    context = torch.randn(1, 5, generator.config.cross_attention_size, dtype=torch.float64)
    ids = people.persons[0].input_ids[None]
    assert ids.shape[1] > 2 * generator.config.sliding_window
    with torch.no_grad():
        whole = generator.model(ids, context, use_cache=False).last_hidden_state
        parts = windowed_states(generator, ids, context)
    assert (whole - parts).abs().max() < 1e-10


def test_training_and_inference_see_the_same_portrait(trained):
    people, processor = load_people(trained / "data", "train"), build_image_processor("nano")
    images = people.persons[0].portraits[:1].float() / 255
    flat = portrait_pixels(images, processor)[0]
    picture = Image.fromarray(people.persons[0].portraits[0].numpy())
    called = processor(picture, detect_face=False)["pixel_values"][0]
    # Two resamplers from 64 to 56 pixels: near, not equal.
    assert (flat - called).abs().mean() < 0.15


def test_portraits_vary_only_with_a_stream(trained):
    people, processor = load_people(trained / "data", "train"), build_image_processor("nano")
    images = people.persons[0].portraits[:1].float() / 255
    first = portrait_pixels(images, processor, torch.Generator().manual_seed(1))
    again = portrait_pixels(images, processor, torch.Generator().manual_seed(1))
    other = portrait_pixels(images, processor, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_decoder_needs_a_generator(trained, tmp_path):
    loop = LoopConfig(str(tmp_path / "run"), max_steps=1, show_progress=False)
    with pytest.raises(FileNotFoundError, match="generator first"):
        run_stage("decoder", trained / "data", tmp_path, "nano", loop)


def test_components_of_different_kinds_do_not_mix(trained, tmp_path):
    loop = LoopConfig(str(tmp_path / "run"), max_steps=1, show_progress=False)
    with pytest.raises(ValueError, match="`stage` must be one of regressor, generator, decoder"):
        run_stage("everything", trained / "data", tmp_path, "nano", loop)
    shutil.copytree(trained / "out" / "rig_regressor", tmp_path / "rig_regressor")
    with pytest.raises(ValueError, match="`size` must be that of the regressor"):
        run_stage("generator", trained / "data", tmp_path, "tiny", loop)
    PointTokenizer(num_bins=32, num_faces=3466).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="another data set: its tokenizer has num_bins 32"):
        run_stage("generator", trained / "data", tmp_path, "nano", loop)


def test_metrics():
    black, gray = torch.zeros(1, 4, 4, 3), torch.full((1, 4, 4, 3), 0.1)
    assert psnr(black, gray).item() == pytest.approx(20)
    errors = pairwise_errors(torch.cat([black, gray]), torch.cat([gray, black]))
    assert torch.allclose(errors, torch.tensor([[0.1, 0.0], [0.0, 0.1]]))
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(values, values.exp()) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(torch.tensor([1.0, 1, 2, 2]), values) == pytest.approx(0.894427)
