# SPDX-License-Identifier: Apache-2.0
"""Tracks of Pixel3DMM: what its own way of posing gives, FLAME's gives too."""

import zipfile

import numpy as np
import pytest
import torch
from fake_flame import dump, write_flame

from pointillist_hf.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from pointillist_hf.motion.motion_files import read_motion
from pointillist_hf.motion.pixel3dmm import read_pixel3dmm, rotations_from_rows
from pointillist_hf.rigs.flame_rig import FlameHeadRig
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "generic_model.pkl"
    write_flame(path)
    return FlameHeadRig.from_flame(path, add_teeth=False)


def random_frame(seed):
    rng = np.random.default_rng(seed)
    rows = {name: rng.normal(size=(1, 6)).astype("f4") for name in ("R", "neck", "jaw")}
    return rows | {
        "shape": rng.normal(size=(1, 300)).astype("f4"),
        "exp": rng.normal(size=(1, 100)).astype("f4"),
        "eyes": rng.normal(size=(1, 12)).astype("f4"),
        "eyelids": np.zeros((1, 2), "f4"),
        "t": rng.normal(size=(1, 3)).astype("f4"),
    }


def write_frame(path, flame, **others):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("frame/data.pkl", dump({"flame": flame, "frame_id": 0, **others}))
        archive.writestr("frame/version", "3\n")


def test_frames_as_torch_writes_them(rig, tmp_path):
    flame = random_frame(0)
    torch.save({"flame": flame, "img_size": 256}, tmp_path / "00000.frame")
    write_frame(tmp_path / "00001.frame", flame)
    params = read_pixel3dmm(tmp_path, rig)
    assert len(params) == 2
    for value in vars(params).values():
        assert torch.equal(value[0], value[1])


def test_vertices_are_those_of_the_trackers_convention(rig, tmp_path):
    """R v + t, with the head posed by everything but R and t."""
    (tmp_path / "checkpoint").mkdir()
    frames = [random_frame(seed) for seed in (1, 2)]
    for number, flame in enumerate(frames):
        write_frame(tmp_path / "checkpoint" / f"{number:05d}.frame", flame)
    params = read_motion(tmp_path, rig)
    still = {name: torch.zeros_like(getattr(params, name)) for name in ("global_orient", "transl")}
    inner = rig(type(params)(**{**vars(params), **still}))
    for number, flame in enumerate(frames):
        rotation = rotations_from_rows(torch.from_numpy(flame["R"]))[0]
        expected = inner[number] @ rotation.T + torch.from_numpy(flame["t"])
        assert torch.allclose(rig(params)[number], expected, atol=2e-5)


def test_two_rows_are_enough_for_a_rotation():
    rotations = axis_angle_to_matrix(torch.randn(20, 3).double())
    assert torch.allclose(rotations_from_rows(rotations[:, :2].flatten(1)), rotations)
    stretched = rotations[:, :2] * torch.tensor([2.0, 3.0])[:, None].double()
    stretched[:, 1] += 0.7 * stretched[:, 0]
    assert torch.allclose(rotations_from_rows(stretched.flatten(1)), rotations)


def test_axis_angles_survive_a_round_trip():
    axis_angle = torch.randn(200, 3).double()
    axis_angle *= (3.1 / axis_angle.norm(dim=-1, keepdim=True)).clamp(max=1)
    axis_angle[0] = 0
    axis_angle[1] = torch.tensor([1e-9, 0, 0])
    back = matrix_to_axis_angle(axis_angle_to_matrix(axis_angle))
    assert torch.allclose(back, axis_angle, atol=1e-8)


def test_eyelids_are_warned_of(rig, tmp_path, caplog):
    flame = random_frame(0) | {"eyelids": np.ones((1, 2), "f4")}
    write_frame(tmp_path / "00000.frame", flame)
    read_pixel3dmm(tmp_path / "00000.frame", rig)
    assert "moves eyelids" in caplog.text


def test_other_rigs_and_versions_are_refused(rig, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a folder of \.frame or \.npz files"):
        read_motion(tmp_path, ProceduralHeadRig("low"))
    write_frame(tmp_path / "checkpoint.frame", random_frame(0))
    with pytest.raises(ValueError, match="mean nothing to ProceduralHeadRig"):
        read_motion(tmp_path, ProceduralHeadRig("low"))
    with pytest.raises(
        ValueError, match=r"tracked with FLAME 2023_no_jaw, and the rig is FLAME 2020"
    ):
        read_pixel3dmm(tmp_path, rig, flame_version="2023_no_jaw")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"must be a \.frame or hold some"):
        read_pixel3dmm(tmp_path / "empty", rig)


class Canary:
    def __reduce__(self):
        return open, ("/nowhere/canary", "w")


@pytest.mark.parametrize(
    ("flame", "message"),
    [
        ({}, "is no frame of Pixel3DMM; it lacks R, exp"),
        (None, "is no frame of Pixel3DMM; it lacks R, exp"),
        (random_frame(0) | {"t": np.zeros((1, 4), "f4")}, "`t` of .* must be 3 finite numbers"),
        (random_frame(0) | {"jaw": np.full((1, 6), np.nan, "f4")}, "`jaw` of .* 6 finite"),
        (random_frame(0) | {"exp": "text"}, "where an array belongs"),
        (random_frame(0) | {"exp": Canary()}, "it names .*open"),
    ],
)
def test_bad_frames_are_refused(flame, message, rig, tmp_path):
    path = tmp_path / "00000.frame"
    write_frame(path, flame)
    with pytest.raises(ValueError, match=message):
        read_pixel3dmm(path, rig)


def test_files_that_are_no_frames_are_refused(rig, tmp_path):
    (tmp_path / "a.frame").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="cannot be read as a frame"):
        read_pixel3dmm(tmp_path / "a.frame", rig)
    with zipfile.ZipFile(tmp_path / "b.frame", "w") as archive:
        archive.writestr("other", "")
    with pytest.raises(ValueError, match=r"is no file of `torch\.save`"):
        read_pixel3dmm(tmp_path / "b.frame", rig)
