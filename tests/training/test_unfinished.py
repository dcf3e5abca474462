# SPDX-License-Identifier: Apache-2.0
"""Pipelines out of a generator's checkpoints, with the decoder of another pipeline."""

import shutil
from pathlib import Path

import pytest
import torch

from pointillist_hf import GaussianDecoder, PointTokenizer
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training.assembling import assemble_pipeline
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.loop import LoopConfig
from pointillist_hf.training.recipes import build_projected_decoder_config
from pointillist_hf.training.stages import run_stage
from pointillist_hf.training.unfinished import save_unfinished_generator

TRACKER = Path(__file__).parents[2] / "model_cards/pointillist-tiny/portrait_tracker"
SIZE = "nano-anchored"
DATA = SyntheticDatasetConfig(
    num_train=2,
    num_test=1,
    num_bins=64,
    num_skin_points=60,
    hair_budget=30,
    num_portraits=1,
    num_views=1,
    image_size=56,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people") / "data"
    build_synthetic_dataset(folder, DATA, show_progress=False)
    return folder


def train(data, output, **options):
    for stage, steps in (("regressor", 1), ("generator", 2)):
        run = str(output / f"{stage}_run")
        loop = LoopConfig(run, max_steps=steps, save_steps=1, show_progress=False, **options)
        run_stage(stage, data, output, SIZE, loop)
    return output


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("run") / "out", batch_size=2)


@pytest.fixture
def base(trained, tmp_path):
    """A pipeline's decoder that looks at the photograph, of other bins."""
    tokenizer = PointTokenizer.from_pretrained(trained / "tokenizer")
    other = PointTokenizer(
        num_bins=32,
        num_faces=tokenizer.num_faces,
        cube_center=tokenizer.cube_center,
        cube_half_extent=tokenizer.cube_half_extent,
    )
    decoder = GaussianDecoder(build_projected_decoder_config(other))
    decoder.save_pretrained(tmp_path / "base" / "gaussian_decoder")
    return tmp_path / "base"


def files_of(folder):
    names = ("conditioner", "point_generator", "tokenizer", "rig", "image_processor")
    paths = [path for name in names for path in sorted((folder / name).iterdir())]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_last_checkpoint_is_what_the_stage_writes(data, trained, tmp_path):
    run = trained / "generator_run"
    assert save_unfinished_generator(run, data, tmp_path / "found", size=SIZE) == 2
    assert files_of(tmp_path / "found") == files_of(trained)
    # An earlier one, and one that is damaged.
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/checkpoints/step-0000002/model.safetensors").write_bytes(b"cut off")
    again = tmp_path / "again"
    assert save_unfinished_generator(tmp_path / "run", data, again, size=SIZE) == 1
    weights = "point_generator/model.safetensors"
    assert files_of(again)[weights] != files_of(trained)[weights]


def test_averaged_weights_are_taken_where_there_are_some(data, tmp_path):
    out = train(data, tmp_path / "out", batch_size=2, ema_decay=0.9)
    save_unfinished_generator(out / "generator_run", data, tmp_path / "found", size=SIZE)
    assert files_of(tmp_path / "found") == files_of(out)


def test_points_per_face_are_those_of_the_data(data, trained, base, tmp_path):
    people = load_people(data, "train")
    counts = [
        people.tokenizer.decode_points(person.input_ids).bindings.bincount().max()
        for person in people.persons
    ]
    assert people.most_per_face == max(counts)
    assert load_people(data, "train", on_disk=True).most_per_face == max(counts)
    pipe = assemble_pipeline(trained, base=base, tracker=TRACKER)
    assert pipe.point_generator.config.max_points_per_face == max(counts)
    components = shutil.copytree(trained, tmp_path / "out")
    pipe.point_generator.config.max_points_per_face = None
    pipe.point_generator.save_pretrained(components / "point_generator")
    pipe = assemble_pipeline(components, base=base, tracker=TRACKER, data=data)
    assert pipe.point_generator.config.max_points_per_face == max(counts)


def test_what_is_lacking_comes_from_another_pipeline(trained, base):
    pipe = assemble_pipeline(trained, base=base, tracker=TRACKER, dtype=torch.float32)
    assert pipe.gaussian_decoder.config.bin_size == pipe.tokenizer.bin_size
    expected = GaussianDecoder.from_pretrained(base / "gaussian_decoder").state_dict()
    for name, value in pipe.gaussian_decoder.state_dict().items():
        assert torch.equal(value, expected[name])
    with pytest.raises(FileNotFoundError, match="lacks gaussian_decoder: train --stage decoder"):
        assemble_pipeline(trained, tracker=TRACKER)


def test_runs_that_do_not_fit_are_refused(data, trained, tmp_path):
    run = trained / "generator_run"
    with pytest.raises(ValueError, match=r"`size` must be one of nano, .* got 'small'"):
        save_unfinished_generator(run, data, tmp_path, size="small")
    with pytest.raises(ValueError, match=r"`size` must be that of the run: .* 'nano-depth'"):
        save_unfinished_generator(run, data, tmp_path, size="nano-depth")
    with pytest.raises(FileNotFoundError, match="`run` must hold checkpoints"):
        save_unfinished_generator(tmp_path, data, tmp_path, size=SIZE)
