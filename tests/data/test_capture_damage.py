# SPDX-License-Identifier: Apache-2.0
"""Captures that are damaged, incomplete or of another rig: each is named, none half read."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from capture_files import CONFIG, edit_frames, edit_json, edit_params, tiny_capture
from PIL import Image

from pointillist_hf.data.captures.reading import read_capture
from pointillist_hf.data.captures.synthetic import write_synthetic_captures
from pointillist_hf.data.captures.writing import write_capture
from pointillist_hf.data.fitting.config import FitConfig
from pointillist_hf.data.fitting.optimisation import Fit
from pointillist_hf.data.rig_reference import open_rig
from pointillist_hf.motion.vhap_params import match_static_offset
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig


def test_pictures_of_sixteen_bits_are_their_eight(capture_copy):
    path = next((capture_copy / "images").iterdir())
    Image.fromarray(np.full((CONFIG.image_size,) * 2, 30_000, np.uint16)).save(path)
    capture = read_capture(capture_copy)
    number = next(i for i, p in enumerate(capture.images.paths) if p == path)
    assert torch.allclose(capture.images[number], torch.tensor(round(30_000 / 257) / 255))


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


def test_missing_masks_are_warned_of(capture_copy, caplog):
    shutil.rmtree(capture_copy / "fg_masks")
    capture = read_capture(capture_copy)
    assert f"{len(capture)} of {len(capture)} pictures" in caplog.text
    assert (capture.masks[0] == 1).all()


def test_shapes_that_differ_between_times_are_warned_of(capture_copy, caplog):
    path = capture_copy / "flame_param" / "00001.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"shape": arrays["shape"] + 0.3})
    betas = read_capture(capture_copy).rig_params.betas
    assert "differ by up to 0.30" in caplog.text
    assert (betas == betas[0]).all()


def test_a_static_offset_of_another_mesh_is_refused():
    with pytest.raises(ValueError, match="`static_offset` of x must have 5143"):
        match_static_offset(torch.ones(100, 3), 5143, "x")


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
        r"00000_00\.png cannot be read",
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
def test_damage_is_named(name, capture_copy):
    damage, kind, message = DAMAGES[name]
    damage(capture_copy)
    with pytest.raises(kind, match=message):
        open_rig(read_capture(capture_copy).rig, source=capture_copy)


def test_parameters_of_another_rig_are_refused(capture_copy):
    edit_params(capture_copy, shape=np.zeros(300), expr=np.zeros((1, 100)))
    with pytest.raises(ValueError, match="`betas` must have 53 coefficients"):
        Fit(read_capture(capture_copy), ProceduralHeadRig("low"), FitConfig.preset("fast"))


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


@pytest.mark.parametrize("changes", [{"num_cameras": 1}, {"num_timesteps": 0}, {"image_size": 2}])
def test_impossible_captures_are_refused(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"`{name}`"):
        dataclasses.replace(CONFIG, **changes)
