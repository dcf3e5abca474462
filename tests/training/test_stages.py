# SPDX-License-Identifier: Apache-2.0
"""The three stages at their smallest, and what comes of them."""

import json
import math
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
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.decoding.grammar import PointGrammar
from pointillist_hf.evaluation.identification import identify_people
from pointillist_hf.evaluation.rankings import pairwise_errors, rank_correlation
from pointillist_hf.rendering.similarity import psnr
from pointillist_hf.training.dataset import load_people, with_token_order
from pointillist_hf.training.frozen_features import windowed_states
from pointillist_hf.training.generator_checks import cloud_losses, validate_generator
from pointillist_hf.training.loop import LoopConfig
from pointillist_hf.training.portraits import portrait_pixels
from pointillist_hf.training.recipes import build_generator_config, build_image_processor
from pointillist_hf.training.stages import run_stage
from pointillist_hf.training.train_generator import GeneratorTraining, train_generator

EXAMPLES = Path(__file__).parents[2] / "examples"
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


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder):
    return [row["loss"] for row in rows(folder)]


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
    assert torch.isfinite(result.matched_psnr).all()
    assert 0 <= result.num_correct <= 2
    assert 0 <= result.num_matched_correct <= 2
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


PRECISE = """
import sys, torch
from pointillist_hf import AvatarConditioner, PointGeneratorForCausalLM
from pointillist_hf.training import recipes
from pointillist_hf.training.dataset import load_people, with_token_order
from pointillist_hf.training.loop import LoopConfig
from pointillist_hf.training.train_generator import train_generator

data, output, size = sys.argv[1:]
people, processor = load_people(data, "train"), recipes.build_image_processor("nano")
people = with_token_order(people, recipes.token_order_of(size, people.tokenizer))
torch.manual_seed(0)
conditioner = AvatarConditioner(recipes.build_conditioner_config(size, people.tokenizer)).double()
conditioner.image_encoder.requires_grad_(False)
conditioner.register_forward_pre_hook(lambda module, args: tuple(a.double() for a in args[:2]))
# Larger than some clouds, so that padding makes the rows weigh differently.
config = recipes.build_generator_config(size, people.tokenizer)
config.sliding_window = 400
generator = PointGeneratorForCausalLM(config).double()
loop = LoopConfig(output, max_steps=4, batch_size=4, save_steps=4, learning_rate=1e-3,
                  ema_decay=0.9, show_progress=False)
train_generator(conditioner, generator, people, processor, loop)
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["nano", "nano-depth", "nano-anchored"])
def test_two_processes_are_one_in_float64(size, trained, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(PRECISE)
    for processes in (1, 2):
        launch = (sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}")
        subprocess.run(
            [*launch, str(script), str(trained / "data"), str(tmp_path / str(processes)), size],
            check=True,
            capture_output=True,
            env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        )
    names = ("loss", "loss_x", "loss_y", "loss_z", "loss_b", "grad_norm")
    one, two = (
        [[row[name] for name in names] for row in rows(tmp_path / number)] for number in "12"
    )
    assert torch.tensor(two, dtype=torch.float64).shape == (4, len(names))
    torch.testing.assert_close(
        torch.tensor(two, dtype=torch.float64),
        torch.tensor(one, dtype=torch.float64),
        atol=0,
        rtol=1e-11,
    )


def test_clouds_in_another_order_than_the_generators_are_refused(trained, tmp_path):
    people = load_people(trained / "data", "train")
    generator = PointGeneratorForCausalLM(build_generator_config("nano-anchored", people.tokenizer))
    conditioner = AvatarConditioner.from_pretrained(trained / "out" / "conditioner")
    with pytest.raises(ValueError, match="`people` must be encoded in the order 'byzx'"):
        train_generator(
            conditioner,
            generator,
            people,
            build_image_processor("nano"),
            LoopConfig(str(tmp_path), show_progress=False),
        )


def test_losses_of_slots_and_ends_add_up(trained):
    for row in rows(trained / "out" / "generator_run"):
        parts = [row[f"loss_{axis}"] for axis in "xyzb"]
        assert min(parts) > 0
        # As many tokens in each slot, but for the first of a window; ends are few.
        assert sum(parts) / 4 == pytest.approx(row["loss"], rel=0.1)


@pytest.mark.parametrize("size", ["nano", "nano-depth"])
@torch.no_grad()
def test_every_token_of_a_cloud_is_scored_once(size, trained):
    people = load_people(trained / "data", "train")
    torch.manual_seed(0)
    config = build_generator_config(size, people.tokenizer)
    config.sliding_window, config.initializer_range = 64, 0.2
    generator = PointGeneratorForCausalLM(config).eval()
    context = torch.randn(1, 5, config.cross_attention_size)
    ids, layout = people.persons[0].input_ids[: 4 * 41], people.tokenizer.layout
    ids = torch.cat([ids, torch.full((4,), layout.eos_token_id)])
    nats, labels = cloud_losses(generator, ids, context)
    assert (labels != -100).nonzero()[:, 0].tolist() == list(range(4, 4 * 41 + 1))
    grammar = PointGrammar(layout, min_points=0)
    for place in range(4, 4 * 41 + 1):
        # The window is the first, half a window apart, that holds the token.
        start = max(0, -(-(place + 1 - 64) // 32) * 32)
        logits = generator(ids[None, start:place], context, use_cache=False).logits[0, -1]
        allowed = grammar.allowed(ids[None, :place])[0]
        expected = -logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)[ids[place]]
        torch.testing.assert_close(nats[place].float(), expected, atol=1e-4, rtol=1e-4)


def test_the_generator_is_watched_while_it_trains(trained, tmp_path):
    shutil.copytree(trained / "out", tmp_path / "out", ignore=shutil.ignore_patterns("*_run"))
    loop = LoopConfig(
        str(tmp_path / "run"),
        max_steps=3,
        batch_size=2,
        eval_steps=2,
        sample_steps=3,
        num_sample_points=20,
        ema_decay=0.5,
        show_progress=False,
    )
    run_stage("generator", trained / "data", tmp_path / "out", "nano-depth", loop)
    found = rows(tmp_path / "run")
    assert ["validation_nats_per_point" in row for row in found] == [False, True, True]
    parts = [found[-1][f"validation_nats_{axis}"] for axis in "xyzb"]
    assert sum(parts) == pytest.approx(found[-1]["validation_nats_per_point"])
    # An untrained network knows next to nothing.
    assert 3 * math.log(64) < sum(parts) < 1.2 * (3 * math.log(64) + math.log(3466))
    assert found[-1]["validation_nats_end"] > 0
    with Image.open(tmp_path / "run" / "samples" / "step-0000003.png") as picture:
        assert picture.width > 4 * 160
    generator = PointGeneratorForCausalLM.from_pretrained(tmp_path / "out" / "point_generator")
    assert generator.config.point_head == "depth"
    # What is exported is the average, and the last figures are its.
    people = load_people(trained / "data", "test")
    conditioner = AvatarConditioner.from_pretrained(tmp_path / "out" / "conditioner")
    training = GeneratorTraining(conditioner, generator).eval()
    again = validate_generator(training, people, build_image_processor("nano"), 16)
    assert again["nats_per_point"] == pytest.approx(found[-1]["validation_nats_per_point"])


def test_an_anchored_generator_trains_resumes_and_is_watched(trained, tmp_path):
    shutil.copytree(
        trained / "out",
        tmp_path / "out",
        ignore=shutil.ignore_patterns("*_run", "tokenizer", "conditioner", "point_generator"),
    )

    def run(folder, max_steps, **settings):
        loop = LoopConfig(
            str(tmp_path / folder), max_steps=max_steps, batch_size=2, save_steps=2, eval_steps=4,
            schedule="constant", learning_rate=3e-3, show_progress=False, **settings,
        )  # fmt: skip
        run_stage("generator", trained / "data", tmp_path / "out", "nano-anchored", loop)
        return rows(tmp_path / folder)

    whole = run("whole", 8)
    run("parts", 4)
    assert run("parts", 8) == whole
    assert whole[-1]["loss"] < whole[0]["loss"]
    # The rows of a person's own head, of the mean one and of somebody else's.
    kinds = [whole[-1][f"validation_nats_{kind}_head"] for kind in ("right", "mean", "wrong")]
    assert kinds[0] != kinds[1]
    assert kinds[0] == kinds[2]  # the split has one person only
    assert kinds[0] == pytest.approx(whole[-1]["validation_nats_per_point"])
    tokenizer = PointTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    assert tokenizer.token_order == "byzx"
    generator = PointGeneratorForCausalLM.from_pretrained(tmp_path / "out" / "point_generator")
    assert generator.config.cube_center == tokenizer.cube_center
    assert generator.config.cube_half_extent == tokenizer.cube_half_extent


@pytest.mark.parametrize("order", ["xyzb", "byzx"])
def test_another_order_of_tokens_is_the_same_cloud(order, trained):
    people = load_people(trained / "data", "train")
    other = with_token_order(people, order)
    for before, after in zip(people.persons, other.persons, strict=True):
        assert not torch.equal(before.input_ids, after.input_ids)
        old, new = (
            tokenizer.decode_points(person.input_ids)
            for tokenizer, person in ((people.tokenizer, before), (other.tokenizer, after))
        )
        key = [other.tokenizer.layout.sort_key, people.tokenizer.layout.sort_key]
        if key[0] == key[1]:
            assert torch.equal(old.means, new.means)
            assert torch.equal(old.bindings, new.bindings)
        assert torch.equal(people.tokenizer.encode_points(new), before.input_ids)
        assert torch.equal(other.tokenizer.encode_points(old), after.input_ids)


@pytest.mark.slow
def test_the_variants_are_compared_and_the_comparison_goes_on(trained, tmp_path):
    command = f"--size nano --seeds 0 --eval_steps 2 --batch_size 2 --output {tmp_path / 'out'}"
    folders = ("--data", str(trained / "data"), "--components", str(trained / "out"))
    results = []
    for seeds in ("0", "0 1"):
        options = command.replace("--seeds 0", f"--seeds {seeds} --max_steps 4").split()
        subprocess.run(
            [sys.executable, str(EXAMPLES / "ablate_generator.py"), *folders, *options],
            check=True,
            capture_output=True,
        )
        results.append(json.loads((tmp_path / "out.json").read_text()))
    first, second = results
    assert second["steps"] == 4
    for variant, seeds in second["curves"].items():
        assert seeds["0"] == first["curves"][variant]["0"]  # not trained again
        assert [row["done"] for row in seeds["1"]] == [2, 4]
        assert seeds["0"][0]["train_seconds"] < seeds["0"][1]["train_seconds"]
        found = second["nats_per_point_at_steps"][variant]
        assert found["1"] == pytest.approx(seeds["1"][-1]["nats_per_point"])
    assert len(second["curves"]) == len(second["nats_per_point_at_seconds"]) == 4
    weights = second["weights"].values()
    assert max(weights) < 1.005 * min(weights)
    assert (tmp_path / "out.svg").read_text().count("<polyline") == 16


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
