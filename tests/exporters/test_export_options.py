# SPDX-License-Identifier: Apache-2.0
"""What one may choose of a format, by call and by command."""

import gzip
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pointillist_hf.avatar import OPTIONS
from pointillist_hf.cli import app
from pointillist_hf.exporters.axes import turn_y_down
from pointillist_hf.exporters.ply import read_bound_ply, read_ply
from pointillist_hf.exporters.splat_formats import SPLAT_WRITERS
from pointillist_hf.exporters.spz import write_spz
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.rotations import quat_multiply
from pointillist_hf.rendering import rasterize


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def avatar_dir(tiny_avatar, tmp_path_factory):
    folder = tmp_path_factory.mktemp("avatar")
    tiny_avatar.save_pretrained(folder)
    return folder


def test_y_down_is_a_turn(tiny_avatar, tmp_path):
    """The same picture, by a camera that is turned as the splats are."""
    tiny_avatar.export(tmp_path / "me.ply", y_down=True)
    turned, plain = read_ply(tmp_path / "me.ply"), tiny_avatar.gaussians
    torch.testing.assert_close(turned.means, plain.means * torch.tensor([1.0, -1.0, -1.0]))
    camera = orbit_cameras([30.0], [10.0], width=48, height=40)
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    turned_camera = replace(camera, viewmats=camera.viewmats @ half_turn)
    one, two = rasterize(plain, camera)[0], rasterize(turned, turned_camera)[0]
    assert one.std() > 0.05
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
    twice = turn_y_down(turn_y_down(plain))
    torch.testing.assert_close(twice.means, plain.means)
    torch.testing.assert_close((twice.quats * plain.quats).sum(-1).abs(), torch.ones(40))


def test_y_down_in_a_splat(tiny_avatar, tmp_path):
    for name, y_down in (("a", False), ("b", True)):
        tiny_avatar.export(tmp_path / f"{name}.splat", y_down=y_down)
    kind = np.dtype([("means", "<f4", 3), ("rest", "u1", 20)])
    a, b = (np.frombuffer((tmp_path / f"{n}.splat").read_bytes(), kind)["means"] for n in "ab")
    np.testing.assert_array_equal(a * [1, -1, -1], b)


@pytest.mark.parametrize(("degree", "columns"), [(0, 17), (1, 26), (2, 41), (3, 62)])
def test_harmonics_are_padded(tiny_avatar, tmp_path, caplog, degree, columns):
    tiny_avatar.export(tmp_path / "me.ply", sh_degree=degree)
    header, _, body = (tmp_path / "me.ply").read_bytes().partition(b"end_header\n")
    assert header.count(b"property float") == columns and len(body) == 40 * columns * 4
    read = read_ply(tmp_path / "me.ply")
    torch.testing.assert_close(read.colors, tiny_avatar.gaussians.colors)
    assert not caplog.text
    tiny_avatar.export(tmp_path / "me.ga.ply", sh_degree=degree)
    assert read_bound_ply(tmp_path / "me.ga.ply").sh_degree == degree


@pytest.mark.parametrize("version", [2, 3])
def test_versions_of_spz(tiny_avatar, tmp_path, version):
    gsply = pytest.importorskip("gsply")
    tiny_avatar.export(tmp_path / "me.spz", version=version)
    read, own = gsply.read_spz(tmp_path / "me.spz"), tiny_avatar.gaussians
    assert np.abs(read.means - own.means.numpy()).max() < 2e-5
    # Half a turn around an axis of its own leaves a splat what it is.
    quats = torch.from_numpy(read.quats / np.linalg.norm(read.quats, axis=-1, keepdims=True))
    cosines = [
        (quats * quat_multiply(own.quats, unit.expand(40, 4))).sum(-1).abs()
        for unit in torch.eye(4)[: 4 if version == 2 else 1]
    ]
    degrees = torch.rad2deg(2 * torch.stack(cosines).amax(0).clamp(max=1).acos())
    assert degrees.max() < (1.5 if version == 2 else 0.25)
    np.testing.assert_allclose(read.scales, own.scales.log(), atol=0.5001 / 16)


def test_versions_of_spz_differ_in_a_byte_per_splat(tiny_gaussians, tmp_path):
    sizes = {}
    for version in (2, 3):
        write_spz(tiny_gaussians, tmp_path / "me.spz", version=version)
        data = gzip.decompress((tmp_path / "me.spz").read_bytes())
        assert struct.unpack("<II", data[4:12]) == (version, 40)
        sizes[version] = len(data)
    assert sizes[3] - sizes[2] == 40


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("me.ply", {"sh_degree": 4}, "`sh_degree` must be at least 0.*at most 3, got 4"),
        ("me.ply", {"sh_degree": -1}, "`sh_degree` must be at least 0"),
        ("me.ga.ply", {"sh_degree": 9}, "at most 3, got 9"),
        ("me.spz", {"version": 1}, "`version` of a .spz must be 2 or 3, got 1"),
        ("me.spz", {"version": "3"}, "must be 2 or 3, got '3'"),
        ("me.spz", {"y_down": True}, "`y_down` is no option of a .spz; it has version"),
        ("me.glb", {"y_down": True}, "`y_down` is no option of a .glb; it has none"),
        ("me.ga.ply", {"y_down": False}, "`y_down` is no option of a .ga.ply; it has sh_degree"),
        ("me.html", {"sh_degree": 3}, "`sh_degree` is no option of a .html; it has title, motion"),
        ("me.ply", {"y_dwon": True}, "`y_dwon` is no option of a .ply; it has sh_degree, y_down"),
    ],
)
def test_options_that_a_format_does_not_have(tiny_avatar, tmp_path, name, options, match):
    with pytest.raises(ValueError, match=match):
        tiny_avatar.export(tmp_path / name, **options)
    if name not in ("me.ga.ply", "me.html"):
        with pytest.raises(ValueError, match=match):
            tiny_avatar.animate().export(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_every_format_says_what_it_has():
    assert {*OPTIONS} == {*SPLAT_WRITERS, ".ga.ply", ".html"}


@pytest.mark.parametrize("suffix", SPLAT_WRITERS)
def test_an_animation_as_numbered_files(tiny_avatar, tmp_path, suffix):
    jaw = torch.linspace(0, 0.3, 3)[:, None] * torch.tensor([[1.0, 0.0, 0.0]])
    animated = tiny_avatar.animate(tiny_avatar.rig_params(num_frames=3, jaw_pose=jaw))
    options = {".ply": {"y_down": True, "sh_degree": 1}, ".spz": {"version": 2}}.get(suffix, {})
    animated.export(tmp_path / "take", frame_format=suffix, **options)
    files = sorted(path.name for path in (tmp_path / "take").iterdir())
    assert files == [f"0000{i}{suffix}" for i in range(3)]
    for frame in range(3):
        one = tiny_avatar.animate(tiny_avatar.rig_params(jaw_pose=jaw[frame].tolist()))
        one.export(tmp_path / f"one{suffix}", **options)
        alone, numbered = tmp_path / f"one{suffix}", tmp_path / "take" / files[frame]
        assert alone.read_bytes() == numbered.read_bytes()
    first, last = (tmp_path / "take" / files[i] for i in (0, 2))
    assert first.read_bytes() != last.read_bytes()


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("take", {"frame_format": ".gif"}, r"`frame_format` must be \.png or, .*, got '\.gif'"),
        ("take", {"frame_format": "ply"}, r"`frame_format` must be .*, got 'ply'"),
        ("take", {"frame_format": ".glb", "y_down": True}, r"no option of a \.glb"),
        ("take", {"y_down": True}, r"`y_down` is no option of a \.png; it has none"),
        ("take.gif", {"frame_format": ".ply"}, r"of a folder, .*got '\.ply' for 'take\.gif'"),
        ("take.gif", {"y_down": True}, r"`y_down` is no option of a \.gif"),
        ("take.ply", {}, r"A \.ply holds one frame, got 2; .*`frame_format='\.ply'`"),
    ],
)
def test_animations_refuse(tiny_avatar, tmp_path, name, options, match):
    animated = tiny_avatar.animate(tiny_avatar.rig_params(num_frames=2))
    with pytest.raises(ValueError, match=match):
        animated.export(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


# The commands -------------------------------------------------------------------------------------


def test_options_of_the_command(avatar_dir, tiny_avatar, tmp_path):
    result = run("export", avatar_dir, tmp_path / "a.ply", "--y-down", "--sh-degree", 3)
    assert result.exit_code == 0, result.output
    tiny_avatar.export(tmp_path / "b.ply", y_down=True, sh_degree=3)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert run("export", avatar_dir, tmp_path / "a.spz", "--spz-version", 2).exit_code == 0
    tiny_avatar.export(tmp_path / "b.spz", version=2)
    assert (tmp_path / "a.spz").read_bytes() == (tmp_path / "b.spz").read_bytes()
    result = run("export", avatar_dir, tmp_path / "a.glb", "--y-down")
    assert result.exit_code == 2 and "`y_down` is no option of a .glb" in result.output


def test_numbered_files_of_the_command(avatar_dir, tmp_path):
    (tmp_path / "take.csv").write_text("jawOpen,eyeBlinkLeft\n0,0\n1,1\n")
    output = tmp_path / "frames"
    result = run(
        "animate", avatar_dir, tmp_path / "take.csv", "-o", output, "--frame-format", ".ply"
    )
    assert result.exit_code == 0, result.output
    means = [read_ply(path).means for path in sorted(output.iterdir())]
    assert len(means) >= 2 and not torch.equal(means[0], means[-1])


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("full", (), "new or empty folder"),
        ("c.gif", ("--fps", 0), "`fps` must be positive"),
        ("c.gif", ("--fps", 60), "at most 50 in a .gif"),
        ("c.mp4", ("--size", 255), "even height and width"),
        ("full/x/c.gif", (), "must lie in a folder"),
        ("new", ("--frame-format", "ply"), "`frame_format` must be .png"),
    ],
)
def test_the_command_looks_at_the_target_first(tmp_path, output, options, message):
    """Neither the avatar nor the motion are there to be read."""
    pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("old")
    result = run(
        "animate", tmp_path / "none", tmp_path / "none.csv", "-o", tmp_path / output, *options
    )
    assert result.exit_code == 2 and message in result.output, result.output
