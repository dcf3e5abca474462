# SPDX-License-Identifier: Apache-2.0
"""Captures: what is written is read again, and foreign folders are understood."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from capture_files import CONFIG, edit_frames, edit_json, edit_params, tiny_capture
from fake_flame import write_flame
from PIL import Image

from pointillist_hf.data.captures.reading import find_captures, read_capture
from pointillist_hf.data.captures.synthetic import capture_person, write_synthetic_captures
from pointillist_hf.data.captures.writing import write_capture
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.optimisation import Fit
from pointillist_hf.data.rig_reference import match_rig, open_rig
from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.motion.vhap_params import match_static_offset, read_params, write_params
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig


def by_place(capture):
    """Pictures by camera and time: a folder is read split by split."""
    times = capture.timesteps.tolist()
    return {key: i for i, key in enumerate(zip(capture.camera_ids, times, strict=True))}


def test_what_is_written_is_read(capture_folder):
    first, second = tiny_capture(), read_capture(capture_folder)
    assert second.name == "anna"
    places, read_places = by_place(first), by_place(second)
    assert places.keys() == read_places.keys()
    for key, i in places.items():
        j = read_places[key]
        assert first.splits[i] == second.splits[j]
        assert torch.allclose(first.cameras.viewmats[i], second.cameras.viewmats[j], atol=1e-6)
        assert torch.equal(first.cameras.Ks[i], second.cameras.Ks[j])
        assert (first.images[i] - second.images[j]).abs().max() <= 0.5 / 255 + 1e-6
        assert (first.masks[i] - second.masks[j]).abs().max() <= 0.5 / 255 + 1e-6
    for name, value in vars(first.rig_params).items():
        assert torch.equal(value, getattr(second.rig_params, name)), name
    assert second.rig == first.rig


def test_a_capture_that_was_read_is_written_to_the_same_files(capture_folder, tmp_path):
    write_capture(read_capture(capture_folder), tmp_path / "again")
    files = sorted(p.relative_to(capture_folder) for p in capture_folder.rglob("*.png"))
    assert files == sorted(p.relative_to(tmp_path / "again") for p in tmp_path.rglob("*.png"))
    for file in files:
        assert (capture_folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    for split in ("train", "val", "test"):
        old, new = (
            json.loads((f / f"transforms_{split}.json").read_text())["frames"]
            for f in (capture_folder, tmp_path / "again")
        )
        old, new = ({f["file_path"]: f["transform_matrix"] for f in x} for x in (old, new))
        assert all(np.allclose(old[name], new[name], atol=1e-6) for name in old)


def test_the_head_is_where_the_pictures_show_it(capture_folder):
    capture = read_capture(capture_folder)
    rig = open_rig(capture.rig, source=capture_folder)
    vertices = rig(capture.rig_params)
    for number in range(len(capture)):
        step = int(capture.timesteps[number])
        pixels, _ = project_points(vertices[step], capture.cameras[number : number + 1])
        pixels = pixels[0].floor().long().clamp(0, CONFIG.image_size - 1)
        covered = capture.masks[number][pixels[:, 1], pixels[:, 0], 0] > 0
        assert covered.float().mean() > 0.95


def test_splits_hold_out_a_camera_and_times():
    capture = tiny_capture()
    held_out = {capture.camera_ids[i] for i in capture.of_split("val")}
    assert len(held_out) == 1
    assert not held_out & {capture.camera_ids[i] for i in capture.of_split("train")}
    times = {split: set(capture.timesteps[capture.of_split(split)].tolist()) for split in
             ("train", "val", "test")}  # fmt: skip
    assert times["train"] == times["val"]
    assert not times["train"] & times["test"]


def test_a_camera_in_opengls_axes(capture_copy):
    # A camera at z = 1 that looks at the origin: what is above the origin is in the upper half.
    matrix = np.eye(4)
    matrix[2, 3] = 1
    edit_frames(capture_copy, transform_matrix=matrix.tolist())
    camera = read_capture(capture_copy).cameras[:1]
    pixels, depths = project_points(torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.0, 0.0]]), camera)
    assert depths.tolist() == [[1, 1]]
    assert pixels[0, 0, 1] < CONFIG.image_size / 2  # above
    assert pixels[0, 1, 0] > CONFIG.image_size / 2  # to the right


def test_principal_points_are_used(capture_copy):
    edit_frames(capture_copy, cx=10.5, cy=20.25)  # from the left, and from the bottom
    assert read_capture(capture_copy).cameras.Ks[:, :2, 2].unique(dim=0).tolist() == [[10.5, 11.75]]


def test_opening_angles_stand_in_for_focal_lengths(capture_copy):
    def change(content):
        for frame in content["frames"]:
            for key in ("fl_x", "fl_y", "cx", "cy"):
                del frame[key]
        for key in ("fl_x", "fl_y", "cx", "cy"):
            content.pop(key, None)

    before = read_capture(capture_copy).cameras.Ks
    edit_json(capture_copy, change)
    assert torch.allclose(read_capture(capture_copy).cameras.Ks, before, rtol=1e-6)


def test_transforms_alone_are_for_training(capture_copy):
    for split in ("train", "val", "test"):
        (capture_copy / f"transforms_{split}.json").unlink()
    assert {*read_capture(capture_copy).splits} == {"train"}


def test_a_union_points_into_its_neighbours(capture_copy, tmp_path):
    union = tmp_path / "UNION"
    union.mkdir()
    content = json.loads((capture_copy / "transforms_train.json").read_text())
    for frame in content["frames"]:
        for key in ("file_path", "fg_mask_path", "flame_param_path"):
            frame[key] = f"../{capture_copy.name}/{frame[key]}"
        del frame["timestep_index_original"], frame["timestep_id"]
    (union / "transforms_train.json").write_text(json.dumps(content))
    assert len(read_capture(union)) == len(content["frames"])


def test_pictures_with_alpha_are_laid_on_white(capture_copy):
    path = next((capture_copy / "images").iterdir())
    Image.new("RGBA", (CONFIG.image_size,) * 2, (255, 0, 0, 128)).save(path)
    capture = read_capture(capture_copy)
    number = next(i for i, p in enumerate(capture.images.paths) if p == path)
    expected = torch.tensor([255, 127, 127]) / 255
    assert torch.allclose(capture.images[number][0, 0], expected, atol=1.1 / 255)


def test_palettes_with_transparency_are_laid_on_white(capture_copy):
    path = next((capture_copy / "images").iterdir())
    image = Image.new("P", (CONFIG.image_size,) * 2, 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(path, transparency=0)
    capture = read_capture(capture_copy)
    number = next(i for i, p in enumerate(capture.images.paths) if p == path)
    assert (capture.images[number] == 1).all()


def test_the_principal_point_survives_writing(capture_folder, tmp_path):
    first = read_capture(capture_folder)
    moved = first.cameras.Ks.clone()
    moved[:, :2, 2] += torch.tensor([1.5, -2.5])
    cameras = dataclasses.replace(first.cameras, Ks=moved)
    write_capture(dataclasses.replace(first, cameras=cameras), tmp_path / "moved")
    assert torch.equal(read_capture(tmp_path / "moved").cameras.Ks, moved)


def test_parameters_of_trackers_that_know_less_are_filled_up(capture_copy):
    edit_params(capture_copy, shape=np.ones(10), expr=np.ones((1, 4)))
    rig = ProceduralHeadRig("low")
    params = match_rig(read_capture(capture_copy), rig).rig_params
    assert params.betas.shape[1] == rig.num_betas
    assert params.betas.sum(1).unique().tolist() == [10]
    assert params.expression.sum(1).unique().tolist() == [4]


def test_a_folder_of_flame_models_is_searched(tmp_path, monkeypatch):
    for name in ("generic_model", "flame2023"):
        write_flame(tmp_path / f"{name}.pkl")
    monkeypatch.setenv("FLAME_MODEL", str(tmp_path))
    words = {"class": "FlameHeadRig", "version": "2023"}
    assert open_rig(words, source="x").config.version == "2023"
    with pytest.raises(ValueError, match=r"got flame2023\.pkl, generic_model\.pkl; name the file"):
        open_rig(None, source="x")


@pytest.mark.parametrize(
    ("vertices", "expected"), [(5023, 5143), (5143, 5023), (5143, 5143), (0, 5143)]
)
def test_static_offsets_with_and_without_teeth(vertices, expected):
    offset = match_static_offset(torch.ones(vertices, 3), expected, "x")
    assert offset.shape == (expected, 3)
    assert float(offset.sum()) == 3 * min(vertices, expected)


def test_a_fit_of_a_capture_without_static_offset_starts(capture_copy):
    edit_params(capture_copy, static_offset=None)
    capture = read_capture(capture_copy)
    assert capture.static_offset.shape == (0, 3)
    rig = ProceduralHeadRig("low")
    assert not Fit(capture, rig, FitConfig.preset("fast")).static_offset.any()


def test_parameters_are_read_as_written(tmp_path, tiny_rig):
    params = tiny_rig.neutral(4)
    moved = {name: torch.randn_like(value) for name, value in vars(params).items()}
    params = dataclasses.replace(params, **moved | {"betas": moved["betas"][:1].expand(4, -1)})
    offset = torch.randn(7, 3)
    write_params(tmp_path / "p.npz", params, offset)
    read, read_offset = read_params(tmp_path / "p.npz")
    for name, value in vars(params).items():
        assert torch.equal(value, getattr(read, name)), name
    assert torch.equal(offset, read_offset)


def test_a_folder_of_captures_is_all_of_them(capture_folder, tmp_path):
    assert find_captures([capture_folder]) == [capture_folder]
    assert find_captures([capture_folder.parent]) == [capture_folder]
    with pytest.raises(FileNotFoundError, match="holds none"):
        find_captures([tmp_path])


def test_captures_on_disk_are_left_alone_and_halves_replaced(tmp_path):
    config = dataclasses.replace(CONFIG, num_timesteps=1, num_cameras=2)
    half = tmp_path / "person_0000001.partial"
    half.mkdir()
    (half / "rest").write_text("of a run that was killed")
    (first, second) = write_synthetic_captures(tmp_path, 2, config, show_progress=False)
    before = (first / "transforms.json").stat().st_mtime_ns
    shutil.rmtree(second)
    write_synthetic_captures(tmp_path, 2, config, show_progress=False)
    assert (first / "transforms.json").stat().st_mtime_ns == before
    assert not half.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"person_0000000", "person_0000001"}
    capture, expected = read_capture(second), capture_person(1, config)
    assert torch.equal(capture.rig_params.betas, expected.rig_params.betas)


def test_the_opening_angle_is_that_of_the_focal_length(capture_folder):
    frame = json.loads((capture_folder / "transforms_train.json").read_text())["frames"][0]
    assert math.isclose(frame["fl_x"] * math.tan(frame["camera_angle_x"] / 2), frame["w"] / 2)
