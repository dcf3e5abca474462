# SPDX-License-Identifier: Apache-2.0
"""The decoder goes on with clouds as a generator draws them."""

import shutil
from pathlib import Path

import pytest
import torch

from pointillist_hf import (
    AvatarConditioner,
    AvatarPipeline,
    GaussianDecoder,
    PointGeneratorForCausalLM,
    PortraitTracker,
)
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training import recipes
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.generated_clouds import GeneratedLessons
from pointillist_hf.training.loop import LoopConfig
from pointillist_hf.training.stages import run_stage

TRACKER = Path(__file__).parents[2] / "model_cards/pointillist-tiny/portrait_tracker"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    points = {"num_skin_points": 60, "hair_budget": 20}
    pictures = {"num_portraits": 2, "num_views": 1, "image_size": 160, "use_one_light": True}
    config = SyntheticDatasetConfig(num_train=1, num_test=0, **points, **pictures)
    folder = tmp_path_factory.mktemp("light") / "people"
    return build_synthetic_dataset(folder, config, show_progress=False)


@pytest.fixture(scope="module")
def people(data):
    return load_people(data, "train")


@pytest.fixture(scope="module")
def pipe(people):
    torch.manual_seed(0)
    tokenizer = people.tokenizer
    generator = recipes.build_generator_config("nano-depth", tokenizer)
    return AvatarPipeline(
        image_processor=recipes.build_image_processor("nano"),
        rig=people.rig,
        conditioner=AvatarConditioner(recipes.build_conditioner_config("nano", tokenizer)),
        tokenizer=tokenizer,
        point_generator=PointGeneratorForCausalLM(generator).eval(),
        gaussian_decoder=GaussianDecoder(recipes.build_projected_decoder_config(tokenizer)),
        portrait_tracker=PortraitTracker.from_pretrained(TRACKER),
        complete_points=True,
        max_points=20,
    )


def test_clouds_are_those_of_the_pipeline_and_are_kept(people, pipe, tmp_path):
    lessons = GeneratedLessons(people, pipe, tmp_path)
    look = lessons._look(people.persons[0], 1, torch.Generator().manual_seed(0))
    cloud = lessons.clouds("one", 7, look.image, look.tracked)
    expected = pipe(look.image, seed=7).input_ids[0]
    expected = people.tokenizer.decode_points(expected)
    assert torch.equal(cloud.means, expected.means)
    assert torch.equal(cloud.bindings, expected.bindings)
    # Read, not drawn: the file is asked, whatever the seed.
    again = GeneratedLessons(people, pipe, tmp_path).clouds("one", 8, look.image, look.tracked)
    assert torch.equal(again.means, cloud.means)


def test_other_weights_and_settings_draw_anew(people, pipe, tmp_path):
    folders = {GeneratedLessons(people, pipe, tmp_path).clouds.folder}
    parts = {**pipe.components, "portrait_tracker": pipe.portrait_tracker}
    warmer = AvatarPipeline(**parts, temperature=0.7, max_points=20)
    folders.add(GeneratedLessons(people, warmer, tmp_path).clouds.folder)
    with torch.no_grad():
        weight = next(pipe.point_generator.parameters())
        weight += 1e-3
        folders.add(GeneratedLessons(people, pipe, tmp_path).clouds.folder)
        weight -= 1e-3
    assert len(folders) == 3


def test_lessons_begin_with_points_of_all_kinds(people, pipe, tmp_path):
    lessons = GeneratedLessons(people, pipe, tmp_path)
    stream = torch.Generator().manual_seed(0)
    look = lessons._look(people.persons[0], 0, stream)
    own, counts = lessons._own_points(0), {"none": 0, "own": 0, "drawn": 0}
    for _ in range(200):
        points = lessons._choose_points(0, 0, look, stream)
        is_own = points is not None and torch.equal(points.means[:5], own.means[:5])
        counts["none" if points is None else "own" if is_own else "drawn"] += 1
    assert 75 < counts["drawn"] < 125
    assert 30 < counts["own"] < 70
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_the_stage_goes_on_with_a_whole_pipeline(data, pipe, tmp_path):
    loop = LoopConfig(
        str(tmp_path / "run"), max_steps=2, batch_size=1, save_steps=1, show_progress=False
    )
    pipe.save_pretrained(tmp_path / "model")
    run_stage("generated-decoder", data, tmp_path / "model", "nano", loop)
    found = AvatarPipeline.from_pretrained(tmp_path / "model").gaussian_decoder.state_dict()
    before = pipe.gaussian_decoder.state_dict()
    assert any(not torch.equal(found[name], before[name]) for name in found)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "model" / "model_index.json").unlink()
    with pytest.raises(FileNotFoundError, match="needs a whole pipeline in `output`"):
        run_stage("generated-decoder", data, tmp_path / "model", "nano", loop)
