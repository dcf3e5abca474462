# SPDX-License-Identifier: Apache-2.0
"""From fits to a data set: people keep their rows, licences their word, broken fits stay out."""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from capture_files import tiny_capture
from datasets import load_dataset
from fake_flame import write_flame
from PIL import Image
from splat_scenes import scatter_on_faces

from pointillist_hf.data.captures.pictures import cut_pictures
from pointillist_hf.data.captures.writing import write_capture
from pointillist_hf.data.fitting.canonicalization import canonicalize
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.fits import FIT_FILE, read_fit
from pointillist_hf.data.fitting.runner import fit_capture, fit_captures
from pointillist_hf.data.tokens.dataset import load_token_dataset
from pointillist_hf.data.tokens.fit_row import TokenizeConfig
from pointillist_hf.data.tokens.people_splits import choose_splits
from pointillist_hf.data.tokens.publication import push_token_dataset
from pointillist_hf.data.tokens.row_picture import draw_row
from pointillist_hf.data.tokens.rows import FEATURES, row_cameras, row_params
from pointillist_hf.data.tokens.tokenize_fits import find_fits, tokenize_fits
from pointillist_hf.exporters.ply import read_bound_ply, write_bound_ply
from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.models.tokenization_points import PointTokenizer
from pointillist_hf.motion.vhap_params import write_params
from pointillist_hf.rigs.flame_rig import FlameHeadRig
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig
from pointillist_hf.training.dataset import load_people

FIT = FitConfig.preset("fast", num_steps=2)


CONFIG = TokenizeConfig(
    num_bins=128, num_portraits=2, num_views=3, image_size=32, num_rig_points=20, num_test=1,
    identities_per_shard=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """Two people, fitted for two steps."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("anna", "bert"):
        write_capture(tiny_capture(), folder / "captures" / name)
        config = dataclasses.replace(FIT, seed=len(name) + ord(name[0]))
        capture = folder / "captures" / name
        fit_capture(capture, folder / "fits" / name, config, show_progress=False)
    return folder / "fits"


@pytest.fixture(scope="module")
def dataset(fits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "people"
    assert tokenize_fits([fits], folder, CONFIG, show_progress=False) == {}
    return folder


def test_a_data_set_is_what_load_dataset_expects(dataset, tmp_path):
    splits = load_dataset(str(dataset), cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in splits.items()} == {"train": 1, "test": 1}
    assert splits["train"].features == FEATURES
    streamed = next(iter(load_dataset(str(dataset), split="test", streaming=True)))
    assert streamed["identity"] == splits["test"][0]["identity"]
    assert splits["train"].with_format("torch")[0]["input_ids"].dtype == torch.int64
    names = {row["identity"] for split in splits.values() for row in split}
    assert names == {"anna", "bert"}


def test_rows_hold_the_points_of_the_fit(dataset, fits):
    row = load_token_dataset(dataset, "train")[0]
    person = read_fit(fits / row["identity"])
    tokenizer = PointTokenizer.from_pretrained(dataset / "tokenizer")
    points, _ = canonicalize(person.splats, person.rig, person.rest_vertices, tokenizer)
    assert row["input_ids"] == tokenizer.encode_points(points).tolist()
    assert row["num_points"] == len(person.splats)
    assert row["source"] == "fit of a capture"
    assert row["licence"] == "other"
    assert row["split"] == "train"
    expected = person.rig.sample_points(person.rig_params.betas[:1], 20)
    assert torch.allclose(torch.tensor(row["rig_points"]).view(20, 6), expected[0])


def test_pictures_of_a_row_show_the_head_in_the_frame_of_portraits(dataset):
    row = load_token_dataset(dataset, "train")[0]
    rig = ProceduralHeadRig.from_pretrained(dataset / "rig")
    params, cameras = row_params(row, "view"), row_cameras(row, "view")
    vertices = rig(params)
    for view, image in enumerate(row["views"]):
        alpha = np.asarray(image)[..., 3]
        pixels, _ = project_points(vertices[view], cameras[view : view + 1])
        inside = ((pixels[0] >= 0) & (pixels[0] < 32)).all(-1)
        places = pixels[0][inside].floor().long()
        assert (alpha[places[:, 1], places[:, 0]] > 0).mean() > 0.9
    for image in row["portraits"]:
        assert image.mode == "RGBA"
        assert image.size == (32, 32)
        # The face is in the middle, and opaque.
        assert np.asarray(image)[11:17, 13:19, 3].min() > 200


def test_portraits_are_taken_from_the_front():
    capture, rig = tiny_capture(), ProceduralHeadRig("low")
    portraits, views = cut_pictures(capture, rig, 2, 5, size=16, seed=0)
    assert len(portraits.images) == 2
    assert len(views.images) == 5
    sideways = dataclasses.replace(
        capture, cameras=capture.cameras[torch.zeros(len(capture), dtype=torch.long)]
    )
    with pytest.raises(ValueError, match="must have a picture from the front"):
        cut_pictures(sideways, rig, 1, 1, size=16, seed=0)


def test_the_data_set_trains(dataset):
    people = load_people(dataset, "train")
    assert len(people) == 1
    assert people.persons[0].portraits.shape == (2, 32, 32, 4)
    assert people.tokenizer.num_faces == people.rig.num_faces


def test_a_row_is_drawn(dataset, tmp_path):
    draw_row(load_token_dataset(dataset, "train")[0], dataset, tmp_path / "row.png")
    pixels = np.asarray(Image.open(tmp_path / "row.png"))
    assert pixels.shape == (64, 96, 3)
    for block in (pixels[:32, :32], pixels[32:, :32], pixels[32:, 64:]):
        assert block.std() > 10


def test_finished_rows_are_not_made_again_and_broken_fits_left_out(fits, dataset, tmp_path):
    copies = shutil.copytree(fits.parent, tmp_path / "work") / "fits"
    shutil.copytree(copies / "anna", copies / "cleo")
    broken = next(copies.glob("cleo/point_cloud/*/point_cloud.ply"))
    good = broken.read_bytes()
    broken.write_bytes(good[:-100])
    config, folder = dataclasses.replace(CONFIG, num_test=0), tmp_path / "people"
    failed = tokenize_fits([copies], folder, config, show_progress=False)
    assert [*failed] == [str(copies / "cleo")]
    assert len(load_dataset("parquet", data_files=[*map(str, folder.glob("*.parquet"))],
                            split="train", cache_dir=str(tmp_path / "c"))) == 2  # fmt: skip
    rows = {p.name: p.stat().st_mtime_ns for p in (folder / ".rows").iterdir()}
    broken.write_bytes(good)
    assert tokenize_fits([copies], folder, config, show_progress=False) == {}
    assert not (folder / ".rows").exists()
    assert len([*folder.glob("*.parquet")]) == 3
    assert len(rows) == 2
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.parquet")}
    assert tokenize_fits([copies], folder, config, show_progress=False) == {}
    assert before == {p.name: p.stat().st_mtime_ns for p in folder.glob("*.parquet")}


def test_the_first_fit_may_be_the_broken_one(fits, tmp_path):
    work = shutil.copytree(fits.parent, tmp_path / "work")
    shutil.copytree(work / "fits" / "anna", work / "fits" / "aaron")
    (work / "fits" / "aaron" / FIT_FILE).write_text("{")
    config = dataclasses.replace(CONFIG, num_test=0)
    failed = tokenize_fits([work / "fits"], tmp_path / "people", config, show_progress=False)
    assert [*failed] == [str(work / "fits" / "aaron")]
    assert len([*(tmp_path / "people").glob("*.parquet")]) == 2


def test_new_fits_are_not_taken_for_those_in_the_cache(fits, tmp_path):
    work = shutil.copytree(fits.parent, tmp_path / "work")
    config, folder = dataclasses.replace(CONFIG, num_test=0), tmp_path / "people"
    tokenize_fits([work / "fits"], folder, config, show_progress=False)
    before = load_token_dataset(folder, "train")[0]
    points = next(work.glob("fits/anna/point_cloud/*/point_cloud.ply"))
    splats = read_bound_ply(points)
    write_bound_ply(dataclasses.replace(splats, means=splats.means + 0.5), points)
    assert tokenize_fits([work / "fits"], folder, config, show_progress=False) == {}
    after = load_token_dataset(folder, "train")[0]
    assert before["identity"] == after["identity"] == "anna"
    assert before["input_ids"] != after["input_ids"]


def test_two_processes_write_the_same_files(fits, dataset, tmp_path):
    tokenize_fits([fits], tmp_path / "people", CONFIG, num_proc=2, show_progress=False)
    for path in dataset.glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "people" / path.name).read_bytes()


def test_an_original_fit_is_imported(fits, tmp_path):
    """A folder as GaussianAvatars writes it, on FLAME with teeth, with a capture beside it."""
    write_flame(tmp_path / "flame2023.pkl")
    rig = FlameHeadRig.from_flame(tmp_path / "flame2023.pkl")
    splats = scatter_on_faces(rig, count=50, spread=0.3)
    place = tmp_path / "fits" / "306" / "point_cloud" / "iteration_600000"
    place.mkdir(parents=True)
    write_bound_ply(splats, place / "point_cloud.ply", sh_degree=3)
    write_params(place / "flame_param.npz", rig.neutral(3), torch.zeros(5023, 3))
    person = read_fit(tmp_path / "fits" / "306", flame_path=tmp_path / "flame2023.pkl")
    assert torch.equal(person.splats.bindings, splats.bindings)
    assert torch.allclose(person.splats.means, splats.means)
    assert person.static_offset.shape == (5143, 3)
    failed_folder = tmp_path / "people"
    with pytest.raises(ValueError, match="does not say where its capture is"):
        tokenize_fits([tmp_path / "fits"], failed_folder, flame_path=tmp_path / "flame2023.pkl",
                      show_progress=False)  # fmt: skip


@pytest.mark.slow
def test_captures_on_flame_become_tokens_without_a_number_of_flame(tmp_path):
    flame = tmp_path / "flame2023.pkl"
    write_flame(flame)
    capture = tiny_capture()
    tracked = FlameHeadRig.from_flame(flame).neutral(len(capture.rig_params))
    tracked = dataclasses.replace(tracked, jaw_pose=0.1 * torch.rand_like(tracked.jaw_pose))
    foreign = dataclasses.replace(
        capture, rig=None, rig_params=tracked, static_offset=torch.zeros(5023, 3)
    )
    write_capture(foreign, tmp_path / "captures" / "UNION10_306")
    fit = FitConfig(num_steps=3, save_every=2)
    captures = [tmp_path / "captures" / "UNION10_306"]
    assert fit_captures(captures, tmp_path / "fits", fit, flame_path=flame) == {}
    config = dataclasses.replace(CONFIG, num_test=0, max_outside=1.0)  # made-up heads are large
    assert tokenize_fits([tmp_path / "fits"], tmp_path / "people", config, flame_path=flame) == {}
    row = load_token_dataset(tmp_path / "people", "train")[0]
    assert row["num_points"] == 10144
    assert [path.name for path in (tmp_path / "people" / "rig").iterdir()] == ["config.json"]
    with pytest.raises(ValueError, match="rig refers to a FLAME model"):
        push_token_dataset(tmp_path / "people", "someone/people")


def test_what_may_not_be_passed_on_is_not_uploaded(dataset, tmp_path):
    with pytest.raises(ValueError, match="rows were made of recordings of people"):
        push_token_dataset(dataset, "someone/people")
    with pytest.raises(FileNotFoundError, match="must hold a data set"):
        push_token_dataset(tmp_path, "someone/people")


def test_another_configuration_is_refused(fits, dataset):
    other = dataclasses.replace(CONFIG, num_bins=64)
    with pytest.raises(ValueError, match="another configuration"):
        tokenize_fits([fits], dataset, other, show_progress=False)


def test_a_split_of_broken_fits_is_refused(fits, tmp_path):
    work = shutil.copytree(fits.parent, tmp_path / "work")
    tested = next(n for n, s in choose_splits(["anna", "bert"], 1).items() if s == "test")
    next(work.glob(f"fits/{tested}/point_cloud/*/point_cloud.ply")).write_bytes(b"ply")
    with pytest.raises(ValueError, match="No fit of split test can be read"):
        tokenize_fits([work / "fits"], tmp_path / "people", CONFIG, show_progress=False)


def test_folders_that_datasets_takes_for_patterns_are_refused(fits, tmp_path):
    with pytest.raises(ValueError, match="must have none of"):
        tokenize_fits([fits], tmp_path / "data [v2]", CONFIG, show_progress=False)


def test_the_iteration_of_the_notes_counts(fits, tmp_path, monkeypatch):
    monkeypatch.delenv("FLAME_MODEL", raising=False)
    copy = shutil.copytree(fits / "anna", tmp_path / "anna")
    (place,) = copy.glob("point_cloud/*")
    shutil.copytree(place, copy / "point_cloud" / "iteration_9")
    write_bound_ply(read_fit(copy).splats[:9], copy / "point_cloud/iteration_9/point_cloud.ply")
    assert len(read_fit(copy).splats) == len(read_fit(fits / "anna").splats)
    (copy / FIT_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="needs FLAME"):
        read_fit(copy)  # without notes it is one of GaussianAvatars


def test_splits_are_stable_and_disjoint():
    names = [f"person_{i}" for i in range(20)]
    splits = choose_splits(names, 5)
    assert sum(split == "test" for split in splits.values()) == 5
    assert choose_splits(names[::-1], 5) == splits
    with pytest.raises(ValueError, match="`num_test` must be less than the number of people"):
        choose_splits(names, 20)


def test_fits_are_found_and_must_have_different_names(fits, tmp_path):
    assert [name for name, _ in find_fits([fits])] == ["anna", "bert"]
    assert find_fits([fits / "anna"]) == [("anna", fits / "anna")]
    with pytest.raises(ValueError, match="there is none in"):
        find_fits([tmp_path])
    with pytest.raises(ValueError, match="different names"):
        find_fits([fits, fits / "anna"])


def test_notes_of_another_version_are_refused(fits, tmp_path):
    copy = shutil.copytree(fits / "anna", tmp_path / "anna")
    notes = json.loads((copy / FIT_FILE).read_text())
    (copy / FIT_FILE).write_text(json.dumps(notes | {"format_version": 99}))
    with pytest.raises(ValueError, match=r"`format_version` of .* must be 1, got"):
        read_fit(copy)


@pytest.mark.parametrize("name", ["num_portraits", "num_views", "identities_per_shard"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number, 1 to"):
        TokenizeConfig(**{name: 0})


@pytest.mark.slow
def test_commands_that_are_killed_end_as_unbroken_ones(tmp_path):
    """Each is killed at three moments; what is on disk in the end is what it would have been."""
    small = "--image-size 48 --num-timesteps 2 --num-cameras 4 --resolution low"
    commands = (
        f"synthesize -o captures --num-identities 3 {small}",
        "fit captures -o fits --preset fast --num-steps 40",
        "tokenize fits -o people --num-test 1 --image-size 48",
    )
    rng = np.random.default_rng(0)
    files = {}
    for name in ("whole", "broken"):
        folder = tmp_path / name
        folder.mkdir()
        for command in commands:
            process = [sys.executable, "-m", "pointillist_hf.cli", *command.split()]
            for _ in range(3 if name == "broken" else 0):
                with contextlib.suppress(subprocess.TimeoutExpired):  # which kills it by SIGKILL
                    subprocess.run(
                        process, cwd=folder, timeout=rng.uniform(4, 12), capture_output=True
                    )
            subprocess.run(process, cwd=folder, check=True, capture_output=True)
        files[name] = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
    assert files["whole"].keys() == files["broken"].keys()
    for name, content in files["whole"].items():
        assert files["broken"][name] == content, name
