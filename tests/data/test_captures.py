# SPDX-License-Identifier: Apache-2.0
"""Captures: what is written is read again, foreign folders are understood, damage is named."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from capture_files import CONFIG, tiny_capture
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "anna"
    write_capture(tiny_capture(), path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def edit_json(folder, change):
    """Applies a change to the transforms of all splits."""
    for path in folder.glob("transforms*.json"):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


def edit_frames(folder, **values):
    edit_json(folder, lambda content: [frame.update(values) for frame in content["frames"]])


def edit_params(folder, **values):
    for path in folder.glob("flame_param/*.npz"):
        with np.load(path) as archive:
            arrays = dict(archive)
        np.savez(path, **{k: v for k, v in (arrays | values).items() if v is not None})


def by_place(capture):
    """Pictures by camera and time: a folder is read split by split."""
    times = capture.timesteps.tolist()
    return {key: i for i, key in enumerate(zip(capture.camera_ids, times, strict=True))}


def test_what_is_written_is_read(folder):
    first, second = tiny_capture(), read_capture(folder)
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


def test_a_capture_that_was_read_is_written_to_the_same_files(folder, tmp_path):
    write_capture(read_capture(folder), tmp_path / "again")
    files = sorted(p.relative_to(folder) for p in folder.rglob("*.png"))
    assert files == sorted(p.relative_to(tmp_path / "again") for p in tmp_path.rglob("*.png"))
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    for split in ("train", "val", "test"):
        old, new = (
            json.loads((f / f"transforms_{split}.json").read_text())["frames"]
            for f in (folder, tmp_path / "again")
        )
        old, new = ({f["file_path"]: f["transform_matrix"] for f in x} for x in (old, new))
        assert all(np.allclose(old[name], new[name], atol=1e-6) for name in old)


def test_the_head_is_where_the_pictures_show_it(folder):
    capture = read_capture(folder)
    rig = open_rig(capture.rig, source=folder)
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


def test_a_camera_in_opengls_axes(copy):
    # A camera at z = 1 that looks at the origin: what is above the origin is in the upper half.
    matrix = np.eye(4)
    matrix[2, 3] = 1
    edit_frames(copy, transform_matrix=matrix.tolist())
    camera = read_capture(copy).cameras[:1]
    pixels, depths = project_points(torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.0, 0.0]]), camera)
    assert depths.tolist() == [[1, 1]]
    assert pixels[0, 0, 1] < CONFIG.image_size / 2  # above
    assert pixels[0, 1, 0] > CONFIG.image_size / 2  # to the right


def test_principal_points_are_used(copy):
    edit_frames(copy, cx=10.5, cy=20.25)  # from the left, and from the bottom
    assert read_capture(copy).cameras.Ks[:, :2, 2].unique(dim=0).tolist() == [[10.5, 11.75]]


def test_opening_angles_stand_in_for_focal_lengths(copy):
    def change(content):
        for frame in content["frames"]:
            for key in ("fl_x", "fl_y", "cx", "cy"):
                del frame[key]
        for key in ("fl_x", "fl_y", "cx", "cy"):
            content.pop(key, None)

    before = read_capture(copy).cameras.Ks
    edit_json(copy, change)
    assert torch.allclose(read_capture(copy).cameras.Ks, before, rtol=1e-6)


def test_transforms_alone_are_for_training(copy):
    for split in ("train", "val", "test"):
        (copy / f"transforms_{split}.json").unlink()
    assert {*read_capture(copy).splits} == {"train"}


def test_a_union_points_into_its_neighbours(copy, tmp_path):
    union = tmp_path / "UNION"
    union.mkdir()
    content = json.loads((copy / "transforms_train.json").read_text())
    for frame in content["frames"]:
        for key in ("file_path", "fg_mask_path", "flame_param_path"):
            frame[key] = f"../{copy.name}/{frame[key]}"
        del frame["timestep_index_original"], frame["timestep_id"]
    (union / "transforms_train.json").write_text(json.dumps(content))
    assert len(read_capture(union)) == len(content["frames"])


def test_pictures_with_alpha_are_laid_on_white(copy):
    path = next((copy / "images").iterdir())
    Image.new("RGBA", (CONFIG.image_size,) * 2, (255, 0, 0, 128)).save(path)
    capture = read_capture(copy)
    number = next(i for i, p in enumerate(capture.images.paths) if p == path)
    expected = torch.tensor([255, 127, 127]) / 255
    assert torch.allclose(capture.images[number][0, 0], expected, atol=1.1 / 255)


def test_palettes_with_transparency_are_laid_on_white(copy):
    path = next((copy / "images").iterdir())
    image = Image.new("P", (CONFIG.image_size,) * 2, 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(path, transparency=0)
    capture = read_capture(copy)
    number = next(i for i, p in enumerate(capture.images.paths) if p == path)
    assert (capture.images[number] == 1).all()


def test_pictures_of_sixteen_bits_are_refused(copy):
    path = next((copy / "images").iterdir())
    Image.fromarray(np.full((CONFIG.image_size,) * 2, 30_000, np.uint16)).save(path)
    capture = read_capture(copy)
    number = next(i for i, p in enumerate(capture.images.paths) if p == path)
    with pytest.raises(ValueError, match="must have 8 bits"):
        capture.images[number]


def test_the_principal_point_survives_writing(folder, tmp_path):
    first = read_capture(folder)
    moved = first.cameras.Ks.clone()
    moved[:, :2, 2] += torch.tensor([1.5, -2.5])
    cameras = dataclasses.replace(first.cameras, Ks=moved)
    write_capture(dataclasses.replace(first, cameras=cameras), tmp_path / "moved")
    assert torch.equal(read_capture(tmp_path / "moved").cameras.Ks, moved)


def test_cameras_without_names_are_refused_by_the_writer(tmp_path):
    nameless = dataclasses.replace(tiny_capture(), camera_ids=("0",) * len(tiny_capture()))
    with pytest.raises(ValueError, match="must tell cameras apart"):
        write_capture(nameless, tmp_path / "anna")
    assert not list(tmp_path.iterdir())


def test_captures_taken_otherwise_are_refused(tmp_path):
    config = dataclasses.replace(CONFIG, num_timesteps=1, num_cameras=2)
    write_synthetic_captures(tmp_path, 1, config, show_progress=False)
    other = dataclasses.replace(config, image_size=48)
    with pytest.raises(ValueError, match="was taken with others"):
        write_synthetic_captures(tmp_path, 1, other, show_progress=False)


def test_parameters_of_trackers_that_know_less_are_filled_up(copy):
    edit_params(copy, shape=np.ones(10), expr=np.ones((1, 4)))
    rig = ProceduralHeadRig("low")
    params = match_rig(read_capture(copy), rig).rig_params
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


def test_missing_masks_are_warned_of(copy, caplog):
    shutil.rmtree(copy / "fg_masks")
    capture = read_capture(copy)
    assert f"{len(capture)} of {len(capture)} pictures" in caplog.text
    assert (capture.masks[0] == 1).all()


def test_shapes_that_differ_between_times_are_warned_of(copy, caplog):
    path = copy / "flame_param" / "00001.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"shape": arrays["shape"] + 0.3})
    betas = read_capture(copy).rig_params.betas
    assert "differ by up to 0.30" in caplog.text
    assert (betas == betas[0]).all()


@pytest.mark.parametrize(
    ("vertices", "expected"), [(5023, 5143), (5143, 5023), (5143, 5143), (0, 5143)]
)
def test_static_offsets_with_and_without_teeth(vertices, expected):
    offset = match_static_offset(torch.ones(vertices, 3), expected, "x")
    assert offset.shape == (expected, 3)
    assert float(offset.sum()) == 3 * min(vertices, expected)


def test_a_static_offset_of_another_mesh_is_refused():
    with pytest.raises(ValueError, match="`static_offset` of x must have 5143"):
        match_static_offset(torch.ones(100, 3), 5143, "x")


def test_a_fit_of_a_capture_without_static_offset_starts(copy):
    edit_params(copy, static_offset=None)
    capture = read_capture(copy)
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


def remove_focal_lengths(content):
    for place in (content, *content["frames"]):
        place.pop("fl_x", None)
        place["camera_angle_x"] = 0


NAN = float("nan")
DAMAGES = {
    "no transforms": (
        lambda f: [path.unlink() for path in f.glob("*.json")],
        FileNotFoundError,
        "neither transforms_train.json nor",
    ),
    "unreadable json": (
        lambda f: (f / "transforms_train.json").write_text("{"),
        ValueError,
        r"transforms_train\.json cannot be read as JSON",
    ),
    "json of another kind": (
        lambda f: (f / "transforms_train.json").write_text("[]"),
        ValueError,
        r'transforms_train\.json must be a JSON object with a list "frames"',
    ),
    "no pictures": (
        lambda f: edit_json(f, lambda content: content.update(frames=[])),
        ValueError,
        "must hold at least one picture",
    ),
    "a frame that is none": (
        lambda f: edit_json(f, lambda content: content.update(frames=[3])),
        ValueError,
        r'Frame 0 of .*transforms_train\.json must be an object with a "file_path"',
    ),
    "a missing image": (
        lambda f: next((f / "images").glob("00000_*")).unlink(),
        FileNotFoundError,
        r"names .*images/00000_\d\d\.png",
    ),
    "an image of another size": (
        lambda f: Image.new("RGB", (8, 9)).save(f / "images/00000_00.png"),
        ValueError,
        r"00000_00\.png must be 32 x 32 pixels as its camera says, got 8 x 9",
    ),
    "a mask of another size": (
        lambda f: Image.new("L", (8, 9)).save(f / "fg_masks/00000_00.png"),
        ValueError,
        r"fg_masks/00000_00\.png must be 32 x 32",
    ),
    "an image that is none": (
        lambda f: (f / "images/00000_00.png").write_text("hello"),
        ValueError,
        r"00000_00\.png cannot be read as a picture",
    ),
    "sizes that differ": (
        lambda f: edit_json(f, lambda content: content["frames"][:1] and
                            content["frames"][0].update(w=31)),
        ValueError,
        "must share one size",
    ),
    "no size": (lambda f: edit_frames(f, w=None), ValueError, "`w` of .* must be a finite number"),
    "a focal length of zero": (lambda f: edit_frames(f, fl_x=0), ValueError, "must be positive"),
    "NaN in a camera": (
        lambda f: edit_frames(f, transform_matrix=[[NAN] * 4] * 4),
        ValueError,
        "`transform_matrix` of .* must be 4 rows of 4 finite numbers",
    ),
    "a ragged camera": (
        lambda f: edit_frames(f, transform_matrix=[[1], [1, 2]]),
        ValueError,
        "`transform_matrix` of .* must be 4 rows",
    ),
    "a camera that shears": (
        lambda f: edit_frames(f, transform_matrix=(2 * np.eye(4)).tolist()),
        ValueError,
        "must be a rotation and a place",
    ),
    "a mirrored camera": (
        lambda f: edit_frames(f, transform_matrix=np.diag([-1.0, 1, 1, 1]).tolist()),
        ValueError,
        "its axes are not unit, or mirrored",
    ),
    "an opening angle of zero": (
        lambda f: edit_json(f, remove_focal_lengths),
        ValueError,
        "Focal lengths of .* must be positive",
    ),
    "a number beyond all bounds": (
        lambda f: edit_frames(f, cx=10**400),
        ValueError,
        "`cx` of .* must be a finite number",
    ),
    "times without numbers": (
        lambda f: edit_json(f, lambda content: [x.pop("timestep_index") for x in
                                                content["frames"]]),
        ValueError,
        "`timestep_index` 0 of .* has two files of parameters",
    ),
    "a rig that is no words": (
        lambda f: edit_json(f, lambda content: content.update(rig={"class": []})),
        ValueError,
        "must be described by words",
    ),
    "no tracking": (
        lambda f: edit_json(f, lambda content: [x.pop("flame_param_path") for x in
                                                content["frames"]]),
        ValueError,
        "run a tracker such as VHAP",
    ),
    "a missing parameter file": (
        lambda f: (f / "flame_param/00000.npz").unlink(),
        FileNotFoundError,
        r"names .*flame_param/00000\.npz",
    ),
    "NaN in the parameters": (
        lambda f: edit_params(f, expr=np.full((1, 44), NAN)),
        ValueError,
        r"`expr` of .*00000\.npz must hold finite numbers",
    ),
    "parameters cut off": (
        lambda f: (f / "flame_param/00000.npz").write_bytes(b"PK\x03\x04 no"),
        ValueError,
        r"00000\.npz cannot be read as \.npz",
    ),
    "parameters without a pose": (
        lambda f: edit_params(f, jaw_pose=None),
        ValueError,
        r"00000\.npz must hold FLAME parameters .* lacks jaw_pose",
    ),
    "two times in one file": (
        lambda f: edit_params(f, expr=np.zeros((2, 44))),
        ValueError,
        "must hold the parameters of one time step, got 2",
    ),
    "a static offset of another form": (
        lambda f: edit_params(f, static_offset=np.zeros((4, 4))),
        ValueError,
        "`static_offset` of .* must have shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(name, copy):
    damage, kind, message = DAMAGES[name]
    damage(copy)
    with pytest.raises(kind, match=message):
        open_rig(read_capture(copy).rig, source=copy)


def test_parameters_of_another_rig_are_refused(copy):
    edit_params(copy, shape=np.zeros(300), expr=np.zeros((1, 100)))
    with pytest.raises(ValueError, match="`betas` must have 53 coefficients"):
        Fit(read_capture(copy), ProceduralHeadRig("low"), FitConfig.preset("fast"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"class": "ProceduralHeadRig", "resolution": "low", "hash": "0"}, "made for another"),
        ({"class": "Robot"}, "`class` of the rig in x is unknown: 'Robot'"),
    ],
)
def test_another_rig_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        open_rig(words, source="x")


def test_captures_without_a_rig_ask_for_flame(monkeypatch):
    monkeypatch.delenv("FLAME_MODEL", raising=False)
    with pytest.raises(FileNotFoundError, match=r"x needs FLAME.*set FLAME_MODEL"):
        open_rig(None, source="x")


def test_a_folder_of_captures_is_all_of_them(folder, tmp_path):
    assert find_captures([folder]) == [folder]
    assert find_captures([folder.parent]) == [folder]
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


@pytest.mark.parametrize("changes", [{"num_cameras": 1}, {"num_timesteps": 0}, {"image_size": 2}])
def test_impossible_captures_are_refused(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"`{name}`"):
        dataclasses.replace(CONFIG, **changes)


def test_the_opening_angle_is_that_of_the_focal_length(folder):
    frame = json.loads((folder / "transforms_train.json").read_text())["frames"][0]
    assert math.isclose(frame["fl_x"] * math.tan(frame["camera_angle_x"] / 2), frame["w"] / 2)
