# SPDX-License-Identifier: Apache-2.0
"""Decoders that know different things of their points: trained, resumed, and made into Table 2."""

import json
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pointillist_hf import GaussianDecoder
from pointillist_hf.cli import app
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.rigs.template_points import build_template_points
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.decoder_variants import VARIANTS, train_decoder_variants
from pointillist_hf.training.frozen_features import FrozenFeatures
from pointillist_hf.training.lessons import Lessons
from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.recipes import build_projected_decoder_config
from pointillist_hf.training.train_decoder import choose_cloud
from pointillist_hf.training.train_projected_decoder import train_projected_decoder

SCRIPT = Path(__file__).parents[2] / "examples" / "ablate_decoder.py"
DATA = SyntheticDatasetConfig(
    num_train=2,
    num_test=0,
    num_bins=64,
    num_skin_points=60,
    hair_budget=30,
    num_portraits=1,
    num_views=3,
    image_size=64,
    use_one_light=True,
)
PAPER = ["template", "features", "positions", "both"]
LOOP = LoopConfig("unused", max_steps=2, batch_size=2, warmup_steps=0, show_progress=False)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants") / "people"
    return build_synthetic_dataset(folder, DATA, show_progress=False)


@pytest.fixture(scope="module")
def components(tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants") / "components"
    tiny_pipeline.save_pretrained(folder)
    return folder


def weights_of(folder):
    return load_file(folder / "gaussian_decoder" / "model.safetensors")


def log_of(runs, name):
    lines = (runs / name / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_the_script_trains_what_table_2_is_made_of(
    people, components, face_benchmark, tmp_path, monkeypatch
):
    out = tmp_path / "ablation"
    options = "--size nano --seeds 0 1 --max_steps 8 --batch_size 2 --warmup_steps 0"
    folders = ["--data", people, "--components", components, "--output", out]
    words = [*folders, *options.split(), "--learning_rate", "3e-3", "--variants", *PAPER]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    titles = json.loads((out / "variants.json").read_text())
    assert titles == {name: VARIANTS[name].title for name in PAPER}
    for name in PAPER:
        decoder = GaussianDecoder.from_pretrained(out / name / "seed_0" / "gaussian_decoder")
        assert decoder.config.inputs == name
        assert (out / name / "seed_1" / "pipeline.json").read_text().split() == [
            "{", '"complete_points":', "false", "}"
        ]  # fmt: skip
        losses = [row["loss"] for row in log_of(tmp_path / "ablation_runs", f"{name}_0")]
        assert len(losses) == 8 and losses[-1] < losses[0]
    # Another seed, other weights; the same command again, the same bits.
    first, second = (weights_of(out / "both" / f"seed_{seed}") for seed in (0, 1))
    assert any(not torch.equal(first[key], second[key]) for key in first)
    shutil.rmtree(out / "both")
    runpy.run_path(str(SCRIPT), run_name="__main__")
    again = weights_of(out / "both" / "seed_0")
    assert all(torch.equal(first[key], again[key]) for key in first)

    results = tmp_path / "results"
    asked = ["evaluate", face_benchmark, "-o", results, "--model", components, "--variants", out]
    ended = CliRunner().invoke(app, [*map(str, asked)])
    assert ended.exit_code == 0, ended.output
    figures = json.loads((results / "results.json").read_text())["figures"]
    assert [*figures] == [VARIANTS[name].title for name in PAPER]
    rows = [figures[title]["self"]["psnr"] for title in figures]
    assert all(row["num_systems"] == 2 and row["deviation"] > 0 for row in rows)
    assert len({round(row["mean"], 6) for row in rows}) == len(PAPER)


@pytest.mark.slow
def test_the_photograph_has_a_row_beside_them(people, components, tmp_path):
    out, trained = tmp_path / "ablation", []
    train_decoder_variants(
        people,
        components,
        out,
        replace(LOOP, max_steps=1),
        size="nano",
        variants=["projected"],
        seeds=[3],
        on_trained=lambda *done: trained.append(done),
    )
    assert trained == [("projected", 3)]
    folder = out / "projected" / "seed_3"
    decoder = GaussianDecoder.from_pretrained(folder / "gaussian_decoder")
    assert (decoder.config.inputs, decoder.config.image_inputs) == ("positions", "projected")
    assert not (folder / "pipeline.json").exists()
    assert json.loads((out / "variants.json").read_text()) == {
        "projected": VARIANTS["projected"].title
    }


@pytest.mark.slow
def test_the_photograph_shows_one_portrait_of_each_as_the_features_do(tmp_path):
    config = replace(DATA, num_portraits=2)
    build_synthetic_dataset(tmp_path / "people", config, show_progress=False)
    lessons = Lessons(load_people(tmp_path / "people", "train"))
    decoder = GaussianDecoder(build_projected_decoder_config(lessons.people.tokenizer))
    loop = replace(LOOP, output_dir=str(tmp_path / "run"), max_steps=3)
    train_projected_decoder(decoder, lessons.people, loop, portraits_per_person=1, lessons=lessons)
    features = FrozenFeatures(tmp_path / "features", lessons.people)
    assert set(lessons.known) == {(i, features.portrait_of(i, 0)) for i in range(2)}
    assert {portrait for _, portrait in lessons.known} == {0, 1}


def test_the_template_takes_the_place_of_the_cloud(people):
    split = load_people(people, "train")
    clouds = {inputs: choose_cloud(split, 1, inputs) for inputs in PAPER}
    template = build_template_points(split.rig, split.persons[1].betas)
    assert torch.equal(clouds.pop("template").means, template.means)
    true = split.tokenizer.decode_points(split.persons[1].input_ids)
    assert all(torch.equal(cloud.means, true.means) for cloud in clouds.values())
    assert len(true) != len(template)


def test_what_does_not_fit_is_refused(people, components, tmp_path):
    with pytest.raises(ValueError, match=r"`variants` must be of template, .* got 'mesh'"):
        train_decoder_variants(people, components, tmp_path / "a", LOOP, variants=["mesh"])
    with pytest.raises(FileNotFoundError, match="`components` must hold what the generator's"):
        train_decoder_variants(people, tmp_path, tmp_path / "a", LOOP)
    others = tmp_path / "others"
    config = replace(DATA, num_train=1, num_bins=32, num_views=1)
    build_synthetic_dataset(others, config, show_progress=False)
    with pytest.raises(ValueError, match=r"`data` must fit `components`: .* num_bins 32, and the"):
        train_decoder_variants(others, components, tmp_path / "a", LOOP)
    assert not (tmp_path / "a").exists()
