# SPDX-License-Identifier: Apache-2.0
"""Stages on encoders from elsewhere, without a regressor, and the pipeline that comes of them."""

import json
import shutil

import pytest
import torch
from made_up_weights import write_image_encoder, write_michelangelo
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

from pointillist_hf import AvatarConditioner, AvatarPipeline, PortraitImageProcessor
from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.pretrained.michelangelo import convert_michelangelo
from pointillist_hf.training.assembling import assemble_pipeline, save_assembly
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.encoders import Encoders, build_processor
from pointillist_hf.training.loop import LoopConfig
from pointillist_hf.training.stages import run_stage

DATA = SyntheticDatasetConfig(
    num_train=2,
    num_test=0,
    num_bins=64,
    num_skin_points=40,
    hair_budget=20,
    num_portraits=1,
    num_views=2,
    image_size=64,
)
STD = (0.3, 0.4, 0.5)  # not DINOv2's


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set, and encoders as they lie on a disk."""
    folder = tmp_path_factory.mktemp("pretrained")
    build_synthetic_dataset(folder / "data", DATA, show_progress=False)
    write_image_encoder(folder / "dinov3", "dinov3_vit", std=STD)
    write_michelangelo(folder / "shapevae.ckpt", size=128, layers=1, latents=5)
    convert_michelangelo(folder / "shapevae.ckpt", folder / "michelangelo")
    return folder


def run(place, output, stage, encoders=None):
    loop = LoopConfig(
        str(output / f"{stage}_run"), max_steps=2, batch_size=2, show_progress=False, save_steps=2
    )
    run_stage(stage, place / "data", output, "nano", loop, encoders)


@pytest.fixture(scope="module")
def components(place):
    encoders = Encoders(
        image=str(place / "dinov3"), point_cloud=str(place / "michelangelo"), image_size=64
    )
    run(place, place / "out", "generator", encoders)
    run(place, place / "out", "decoder")
    return place / "out"


def test_the_conditioner_keeps_what_it_took_over(place, components):
    kept = AvatarConditioner.from_pretrained(components / "conditioner")
    for name, source in (("image_encoder", "dinov3"), ("point_cloud_encoder", "michelangelo")):
        wanted = AutoModel.from_pretrained(place / source).state_dict()
        found = getattr(kept, name).state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    held = {name.split(".")[0] for name in load_file(components / "conditioner/model.safetensors")}
    assert held == {"image_proj", "point_proj", "embed_kinds"}
    assert not (components / "rig_regressor").exists()


def test_portraits_are_normalised_as_the_encoder_wants(components):
    processor = PortraitImageProcessor.from_pretrained(components / "image_processor")
    assert (processor.size, tuple(processor.image_std)) == (64, STD)


def test_the_pipeline_needs_tracking_and_has_no_regressor(place, components, tmp_path):
    pipe = assemble_pipeline(components, dtype=torch.float32, max_points=5)
    save_assembly(pipe, tmp_path / "model", source="trained for a test", licence="mit")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["rig_regressor"] == [None, None]
    assert index["licences"]["conditioner"]["licence"] == "mit"
    people = load_people(place / "data", "train")
    person = people.persons[0]
    picture = Image.fromarray(person.portraits[0].numpy())
    options = {"rig_params": person.portrait_params[:1], "detect_face": False, "seed": 3}
    loaded = AvatarPipeline.from_pretrained(tmp_path / "model")
    outputs = [p(picture, engine="reference", **options) for p in (pipe, loaded)]
    assert torch.equal(outputs[0].input_ids, outputs[1].input_ids)
    assert len(outputs[0].avatar) > 0
    with pytest.raises(ValueError, match="`rig_params` must be given"):
        pipe(picture, detect_face=False)


def test_components_that_are_missing_are_named(place, components, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lacks conditioner: train --stage generator"):
        assemble_pipeline(tmp_path)
    shutil.copytree(components, tmp_path / "out", ignore=shutil.ignore_patterns("*_run"))
    shutil.rmtree(tmp_path / "out" / "gaussian_decoder")
    with pytest.raises(FileNotFoundError, match="train --stage decoder"):
        assemble_pipeline(tmp_path / "out")
    with pytest.raises(ValueError, match="`landmarks` are for FLAME alone"):
        assemble_pipeline(components, landmarks=place / "landmarks.npy")


def test_sizes_that_do_not_divide_are_refused_before_anything_is_read(place, tmp_path):
    image = str(place / "dinov3")
    with pytest.raises(ValueError, match=r"patches .* 16 pixels, got 56; take 48 or 64"):
        run(place, tmp_path, "generator", Encoders(image=image))
    with pytest.raises(ValueError, match="must come with an image encoder"):
        Encoders(image_size=64)
    with pytest.raises(ValueError, match="must be given to the stage generator alone"):
        run(place, tmp_path, "decoder", Encoders(image=image))
    with pytest.raises(FileNotFoundError, match="or give an --image_encoder"):
        run(place, tmp_path, "generator")


def test_one_folder_is_for_portraits_of_one_kind(place, components, tmp_path):
    out = shutil.copytree(components, tmp_path / "out", ignore=shutil.ignore_patterns("*_run"))
    with pytest.raises(ValueError, match=r"a conditioner that sees portraits with size 64, and"):
        run(place, out, "regressor")
    assert PortraitImageProcessor.from_pretrained(out / "image_processor").size == 64
    (out / "conditioner").rename(out / "rig_regressor")
    encoders = Encoders(image=str(place / "dinov3"), image_size=112)
    with pytest.raises(ValueError, match=r"a rig_regressor that sees portraits with size 64"):
        run(place, out, "generator", encoders)


def test_encoders_that_do_not_fit_are_refused(place, tmp_path):
    moved = shutil.copytree(place / "dinov3", tmp_path / "dinov3")
    (moved / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    with pytest.raises(ValueError, match=r"lacks image_std"):
        build_processor("nano", Encoders(image=str(moved), image_size=64))
    config = json.loads((moved / "config.json").read_text()) | {"model_type": "vit"}
    (moved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"must be one of dinov2, .* is vit"):
        build_processor("nano", Encoders(image=str(moved), image_size=64))
