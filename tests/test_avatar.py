# SPDX-License-Identifier: Apache-2.0
"""The avatar: animated, rendered, saved, exported."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pointillist_hf import Avatar
from pointillist_hf.avatar import AVATAR_SUFFIXES, SPLAT_WRITERS
from pointillist_hf.exporters.ply import read_ply
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


def test_unknown_suffixes_are_refused(tiny_avatar, tmp_path):
    for name in ("me.docx", "me", "me.gif"):
        with pytest.raises(ValueError, match=rf"`path` must end in one of .*.ply.*got '{name}'"):
            tiny_avatar.export(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", AVATAR_SUFFIXES)
def test_exports_replace_files_in_one_step(tiny_avatar, tmp_path, suffix):
    path = tmp_path / "new" / f"me{suffix}"
    tiny_avatar.export(path)
    fresh = path.read_bytes()
    path.write_bytes(b"old")
    with path.open("rb") as old:
        tiny_avatar.export(path)
        assert old.read() == b"old"
    assert path.read_bytes() == fresh
    assert [p.name for p in path.parent.iterdir()] == [f"me{suffix}"]


def test_failing_exports_leave_the_old_file(tiny_avatar, tmp_path):
    (tmp_path / "me.html").write_bytes(b"old")
    motion = replace(tiny_avatar.rig_params(), transl=torch.full((1, 3), float("nan")))
    with pytest.raises(ValueError, match="`transl` is not in frame 0"):
        tiny_avatar.export(tmp_path / "me.html", motion=motion)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("suffix", AVATAR_SUFFIXES)
def test_exports_onto_a_folder_leave_it_alone(tiny_avatar, tmp_path, suffix):
    (tmp_path / f"me{suffix}").mkdir()
    with pytest.raises(OSError, match="me"):
        tiny_avatar.export(tmp_path / f"me{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == [f"me{suffix}"]


@pytest.mark.parametrize("suffix", [suffix for suffix in AVATAR_SUFFIXES if suffix != ".html"])
def test_options_are_of_the_page(tiny_avatar, tmp_path, suffix):
    with pytest.raises(ValueError, match=f"`title` is no option of a {suffix}; it has"):
        tiny_avatar.export(tmp_path / f"me{suffix}", title="me")


def test_clips_hold_the_frames(tiny_avatar, tmp_path):
    animated, view = tiny_avatar.animate(moving(tiny_avatar, 3)), cameras()
    blue = torch.tensor([0.1, 0.2, 0.7])
    animated.export(tmp_path / "clip.gif", view, fps=10)
    with Image.open(tmp_path / "clip.gif") as clip:
        assert (clip.n_frames, clip.size, clip.info["duration"]) == (3, (24, 20), 100)
    animated.export(tmp_path / "frames", view, background=blue)
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
    expected = (255 * animated.render(view, background=blue)).clamp(0, 255).round()
    for file, frame in zip(files, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), frame)


def test_mp4_of_an_avatar(tiny_avatar, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    tiny_avatar.animate(moving(tiny_avatar, 2)).export(tmp_path / "clip.mp4", cameras())
    assert (tmp_path / "clip.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("suffix", SPLAT_WRITERS)
def test_posed_splats_leave_one_by_one(tiny_avatar, tmp_path, suffix):
    animated = tiny_avatar.animate(moving(tiny_avatar, 3))
    with pytest.raises(ValueError, match=f"A {suffix} holds one frame, got 3"):
        animated.export(tmp_path / f"me{suffix}")
    smile = tiny_avatar.animate(tiny_avatar.rig_params({"mouthSmile": 1.0}))
    smile.export(tmp_path / f"me{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"me{suffix}"]
    if suffix == ".ply":
        posed = read_ply(tmp_path / "me.ply").means
        torch.testing.assert_close(posed, smile.gaussians.means[0])


@pytest.mark.parametrize("name", ["me.ga.ply", "me.html", "me.docx"])
def test_motion_has_other_formats(tiny_avatar, tmp_path, name):
    with pytest.raises(ValueError, match=r"`path` must end in one of \.gif, \.mp4, \.ply"):
        tiny_avatar.animate().export(tmp_path / name)
    assert not list(tmp_path.iterdir())


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


def test_what_is_kept_between_frames_follows_the_gaussians(tiny_avatar):
    person = Avatar(tiny_avatar.gaussians, tiny_avatar.bindings, tiny_avatar.rig, tiny_avatar.betas)
    params = person.rig_params({"mouthSmile": 1.0}, jaw_pose=[0.3, 0.0, 0.0])
    first = person.animate(params).gaussians.means
    assert torch.equal(first, person.animate(params).gaussians.means)
    person.gaussians, person.bindings = person.gaussians[:7], person.bindings[:7].flip(0)
    fresh = Avatar(person.gaussians, person.bindings, person.rig, person.betas)
    moved, expected = (p.animate(params).gaussians.means for p in (person, fresh))
    assert torch.equal(moved, expected)
    assert not torch.equal(moved, first[:, :7])
