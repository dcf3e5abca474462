# SPDX-License-Identifier: Apache-2.0
"""The avatar: animated, rendered, saved, exported."""

import json
import logging
from dataclasses import replace

import pytest
import torch

from pointillist_hf import Avatar
from pointillist_hf.avatar import EXPORTERS
from pointillist_hf.exporters.ply import COLUMNS, read_ply, write_ply
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.rendering import rasterize

FIELDS = ("means", "quats", "scales", "opacities", "colors")


def cameras(count=1):
    return orbit_cameras([10.0 * i for i in range(count)], width=24, height=20)


def moving(avatar, frames):
    jaw = torch.linspace(0, 0.4, frames)[:, None] * torch.tensor([[1.0, 0.0, 0.0]])
    return avatar.rig_params({"mouthSmile": 0.5}, num_frames=frames, jaw_pose=jaw)


@pytest.mark.parametrize(
    ("frames", "count", "images"), [(1, 1, 1), (3, 1, 3), (1, 3, 3), (3, 3, 3)]
)
def test_shapes_of_animation_and_pictures(tiny_avatar, frames, count, images):
    animated = tiny_avatar.animate(moving(tiny_avatar, frames))
    assert len(animated) == frames
    assert animated.gaussians.means.shape == (frames, 40, 3)
    pictures = animated.render(cameras(count))
    assert pictures.shape == (images, 20, 24, 3)
    assert pictures.min() >= 0
    assert pictures.max() <= 1 + 1e-5


def test_frames_and_cameras_are_paired(tiny_avatar):
    animated, pair = tiny_avatar.animate(moving(tiny_avatar, 2)), cameras(2)
    pictures = animated.render(pair)
    for i in range(2):
        colors, _ = rasterize(animated.gaussians[i], pair[i : i + 1], backgrounds=torch.ones(1, 3))
        assert torch.equal(pictures[i], colors[0])


def test_numbers_of_frames_and_cameras_must_match(tiny_avatar):
    animated = tiny_avatar.animate(moving(tiny_avatar, 3))
    with pytest.raises(ValueError, match=r"one per frame: got 2 cameras for 3 frames"):
        animated.render(cameras(2))


def test_background_shows_where_nothing_is(tiny_avatar):
    blue = torch.tensor([0.1, 0.2, 0.7])
    away = replace(
        cameras(), viewmats=cameras().viewmats @ torch.diag(torch.tensor([-1, 1, -1, 1.0]))
    )
    for background, expected in ((None, torch.ones(3)), (blue, blue)):
        picture = tiny_avatar.render(away, background=background)
        empty = torch.isclose(picture, expected.expand_as(picture), atol=1e-6).all(-1)
        assert empty.float().mean() > 0.2


def test_the_default_is_a_neutral_portrait(tiny_avatar):
    assert torch.equal(tiny_avatar.render(), tiny_avatar.animate().render(orbit_cameras([0.0])))
    assert tiny_avatar.render().shape == (1, 256, 256, 3)


def test_neutral_avatars_are_their_canonical_gaussians(tiny_avatar):
    posed = tiny_avatar.animate().gaussians[0]
    torch.testing.assert_close(posed.means, tiny_avatar.gaussians.means, atol=1e-6, rtol=0)


def test_identity_stays_with_the_avatar(tiny_avatar):
    own = moving(tiny_avatar, 2)
    of_another = replace(own, betas=torch.randn_like(own.betas))
    first, second = (tiny_avatar.animate(params).gaussians for params in (own, of_another))
    assert torch.equal(first.means, second.means)


@pytest.mark.parametrize("mode", ["lbs", "triangle"])
def test_frames_move(tiny_avatar, mode):
    posed = tiny_avatar.animate(moving(tiny_avatar, 3), mode=mode).gaussians
    assert (posed.means[2] - posed.means[0]).norm(dim=-1).max() > 0.003


def test_parameters_by_name(tiny_avatar):
    params = tiny_avatar.rig_params(
        {"mouthSmile": 1.0}, num_frames=2, neck_pose=[0.0, 0.3, 0.0], transl=torch.ones(2, 3)
    )
    assert len(params) == 2
    assert torch.equal(params.betas, tiny_avatar.betas.expand(2, -1))
    torch.testing.assert_close(params.neck_pose, torch.tensor([[0.0, 0.3, 0.0]] * 2))
    assert torch.equal(params.transl, torch.ones(2, 3))
    assert params.expression.count_nonzero() == 4
    assert params.jaw_pose.count_nonzero() == 0


@pytest.mark.parametrize("name", ["chin_pose", "betas", "expressions"])
def test_unknown_joints_are_refused(tiny_avatar, name):
    with pytest.raises(
        ValueError, match=f"`{name}` is no joint of the rig; it can be global_orient"
    ):
        tiny_avatar.rig_params(**{name: [0.0, 0.0, 0.0]})


def test_parameters_of_another_rig_are_refused(tiny_avatar):
    params = replace(tiny_avatar.rig_params(), expression=torch.zeros(1, 100))
    with pytest.raises(ValueError, match="`expression` must have 45 coefficients"):
        tiny_avatar.animate(params)


def test_parts_that_do_not_fit_are_refused(tiny_avatar):
    gaussians, bindings = tiny_avatar.gaussians, tiny_avatar.bindings
    rig, betas = tiny_avatar.rig, tiny_avatar.betas
    with pytest.raises(ValueError, match=r"must hold the same N points, got \(40,\) and \(39,\)"):
        Avatar(gaussians, bindings[1:], rig, betas)
    with pytest.raises(ValueError, match=r"`betas` must have shape \(53,\)"):
        Avatar(gaussians, bindings, rig, betas[1:])
    with pytest.raises(ValueError, match="`bindings` must be faces 0 to 3681 of the rig"):
        Avatar(gaussians, bindings + 3682, rig, betas)
    with pytest.raises(ValueError, match=r"must hold the same N points"):
        Avatar(tiny_avatar.animate().gaussians, bindings, rig, betas)


def test_save_and_load(tiny_avatar, tmp_path):
    tiny_avatar.save_pretrained(tmp_path / "new" / "me")
    loaded = Avatar.from_pretrained(tmp_path / "new" / "me")
    for name in FIELDS:
        assert torch.equal(getattr(loaded.gaussians, name), getattr(tiny_avatar.gaussians, name))
    assert torch.equal(loaded.bindings, tiny_avatar.bindings)
    assert torch.equal(loaded.betas, tiny_avatar.betas)
    assert len(loaded) == 40
    first, second = (a.animate(moving(a, 2)).render(cameras()) for a in (tiny_avatar, loaded))
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    assert not list(tmp_path.rglob("*.partial"))


def test_saving_again_replaces(tiny_avatar, tmp_path):
    tiny_avatar.save_pretrained(tmp_path)
    darker = replace(tiny_avatar.gaussians, colors=0.5 * tiny_avatar.gaussians.colors)
    Avatar(darker, tiny_avatar.bindings, tiny_avatar.rig, tiny_avatar.betas).save_pretrained(
        tmp_path
    )
    assert torch.equal(Avatar.from_pretrained(tmp_path).gaussians.colors, darker.colors)


def test_slices_can_be_saved(tiny_avatar, tmp_path):
    """Expanded and shared tensors, which safetensors does not take as they are."""
    gaussians = replace(
        tiny_avatar.gaussians,
        colors=torch.ones(1, 3).expand(40, 3),
        scales=tiny_avatar.gaussians.means.abs() + 0.01,
    )
    avatar = Avatar(gaussians, tiny_avatar.bindings, tiny_avatar.rig, tiny_avatar.betas)
    avatar.save_pretrained(tmp_path)
    assert torch.equal(Avatar.from_pretrained(tmp_path).gaussians.colors, torch.ones(40, 3))


def test_missing_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`folder` must hold avatar.json, and .*nobody"):
        Avatar.from_pretrained(tmp_path / "nobody")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "`format_version` must be 1, got 99"),
        ({"rig_class": "Exotic"}, "`rig_class` must be one of ProceduralHeadRig.*, got Exotic"),
    ],
)
def test_foreign_folders_are_refused(tiny_avatar, tmp_path, changes, message):
    tiny_avatar.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "avatar.json").read_text())
    (tmp_path / "avatar.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ValueError, match=message):
        Avatar.from_pretrained(tmp_path)


def test_ply_header_and_size(tiny_avatar, tmp_path):
    path = tmp_path / "new" / "me.ply"
    tiny_avatar.export(path)
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 40"]
    assert lines[3:] == [f"property float {name}" for name in COLUMNS]
    assert len(body) == 40 * 17 * 4


def test_ply_round_trip(tiny_avatar, tmp_path):
    tiny_avatar.export(tmp_path / "me.ply")
    restored = read_ply(tmp_path / "me.ply")
    for name in FIELDS:
        expected = getattr(tiny_avatar.gaussians, name)
        torch.testing.assert_close(getattr(restored, name), expected, atol=1e-6, rtol=1e-5)
    view = cameras()
    pictures = [rasterize(g, view)[0] for g in (restored, tiny_avatar.gaussians)]
    torch.testing.assert_close(*pictures, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("means", float("nan")), ("colors", float("inf")), ("quats", float("nan")), ("scales", 0.0)],
)
def test_splats_that_are_none_are_left_out(tiny_gaussians, tmp_path, caplog, name, value):
    broken = getattr(tiny_gaussians, name).clone()
    broken[7] = value
    with caplog.at_level(logging.WARNING, "pointillist_hf.exporters.ply"):
        write_ply(replace(tiny_gaussians, **{name: broken}), tmp_path / "me.ply")
    assert "1 splats with non-finite values were left out" in caplog.text
    kept = torch.arange(40) != 7
    restored = read_ply(tmp_path / "me.ply")
    torch.testing.assert_close(restored.means, tiny_gaussians.means[kept])


def test_opaque_and_clear_splats_are_kept(tiny_gaussians, tmp_path):
    opacities = torch.tensor([0.0, 1.0] * 20)
    write_ply(replace(tiny_gaussians, opacities=opacities), tmp_path / "me.ply")
    torch.testing.assert_close(
        read_ply(tmp_path / "me.ply").opacities, opacities, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("cut", [1, 68, 2000])
def test_ply_files_that_are_cut_off_are_refused(tiny_avatar, tmp_path, cut):
    path = tmp_path / "me.ply"
    tiny_avatar.export(path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"`path` must hold 40 rows of 68 bytes.* is cut off"):
        read_ply(path)


@pytest.mark.parametrize("text", ["", "ply\nformat ascii 1.0\nend_header\n", "not a ply"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "me.ply"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"`path` must be a binary 3DGS \.ply of 17 columns"):
        read_ply(path)


def test_unknown_suffixes_are_refused(tiny_avatar, tmp_path):
    for name in ("me.docx", "me"):
        with pytest.raises(ValueError, match=rf"`path` must end in one of .ply.*got '{name}'"):
            tiny_avatar.export(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_failing_exports_leave_nothing_behind(tiny_avatar, tmp_path, monkeypatch):
    def write_half(avatar, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setitem(EXPORTERS, ".half", write_half)
    with pytest.raises(OSError, match="disk full"):
        tiny_avatar.export(tmp_path / "new.half")
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.half").write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        tiny_avatar.export(tmp_path / "old.half")
    assert [p.name for p in tmp_path.iterdir()] == ["old.half"]
    assert (tmp_path / "old.half").read_bytes() == b"old"


def test_exports_onto_a_folder_leave_it_alone(tiny_avatar, tmp_path):
    (tmp_path / "me.ply").mkdir()
    with pytest.raises(OSError, match=r"me\.ply"):
        tiny_avatar.export(tmp_path / "me.ply")
    assert [p.name for p in tmp_path.iterdir()] == ["me.ply"]


def test_moving_to_a_device_keeps_the_numbers(tiny_avatar):
    moved = tiny_avatar.to("cpu")
    assert torch.equal(moved.gaussians.means, tiny_avatar.gaussians.means)
    assert torch.equal(moved.render(cameras()), tiny_avatar.render(cameras()))


def test_a_damaged_file_is_refused(tiny_avatar, tmp_path):
    tiny_avatar.save_pretrained(tmp_path)
    file = tmp_path / "avatar.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        Avatar.from_pretrained(tmp_path)
