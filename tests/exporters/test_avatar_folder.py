# SPDX-License-Identifier: Apache-2.0
"""Folders of avatars that are damaged, cut off, or were made by hand."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pointillist_hf import Avatar
from pointillist_hf.cli import app
from pointillist_hf.exporters.json_file import read_json_object
from pointillist_hf.exporters.tensor_file import read_tensors, write_tensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
NAN = float("nan")


@pytest.fixture(scope="module")
def saved(tiny_avatar, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tiny_avatar.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "me")


def change(path, **changes):
    """Other tensors in a file; None takes one out."""
    tensors = load_file(path)
    for name, value in changes.items():
        tensors.pop(name, None)
        if callable(value):
            value = value(load_file(path)[name])
        if value is not None:
            tensors[name] = value.contiguous().clone()
    save_file(tensors, path)


def spoil(tensor, value, index=7):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("means", None, r"`means` must be in .*avatar\.safetensors, and is not; save"),
        ("betas", None, "`betas` must be in"),
        ("bindings", None, "`bindings` must be in"),
        ("colors", lambda t: t[:, :2], r"`colors` of .* must have shape \(40, 3\), got \(40, 2\)"),
        ("opacities", lambda t: t[:, None], r"`opacities` of .* shape \(40,\), got \(40, 1\)"),
        ("quats", lambda t: t[:39], r"`quats` of .* shape \(40, 4\), got \(39, 4\)"),
        ("means", lambda t: t.sum(), r"`means` of .* shape \(0, 3\), got \(\)"),
        ("bindings", lambda t: t[:12], r"`bindings` of .* shape \(40,\), got \(12,\)"),
        ("bindings", lambda t: t.float(), r"`bindings` must be faces .* got torch\.float32"),
        ("bindings", lambda t: t.bool(), r"`bindings` must be faces .* got torch\.bool"),
        ("bindings", lambda t: spoil(t, 3682), "`bindings` must be faces 0 to 3681.* to 3682"),
        ("bindings", lambda t: spoil(t, -1), "`bindings` must be faces 0 to 3681.* got -1 to"),
        ("means", lambda t: spoil(t, NAN), "`means` of .* must be finite, and holds nan"),
        ("scales", lambda t: spoil(t, float("inf")), "`scales` of .* must be finite"),
        ("betas", lambda t: spoil(t, NAN), "`betas` of .* must be finite"),
        ("betas", lambda t: t[:50], r"`betas` must have shape \(53,\), got \(50,\)"),
        ("betas", lambda t: t.long(), "`betas` must be finite numbers, got torch.int64"),
        ("opacities", lambda t: spoil(t, 7.0), r"`opacities` must lie in \[0, 1\], got 7; of log"),
        ("opacities", lambda t: spoil(t, -0.1), r"`opacities` must lie in \[0, 1\], got -0\.1"),
        ("scales", lambda t: t.log(), "`scales` must be positive, in metres, got -.*take `exp`"),
        ("colors", lambda t: 255 * t, r"`colors` must be sRGB in \[0, 1\], got 2.*divide bytes"),
        (
            "colors",
            lambda t: (255 * t).byte(),
            r"`colors` must be floating numbers, got torch.uint8",
        ),
    ],
)
def test_tensors_of_an_avatar_are_looked_at(folder, name, value, match):
    change(folder / "avatar.safetensors", **{name: value})
    with pytest.raises(ValueError, match=match):
        Avatar.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("faces", None, r"`faces` must be in .*diffusion_pytorch_model\.safetensors, and is not"),
        ("v_template", None, "`v_template` must be in"),
        ("faces", lambda t: spoil(t, 1932), "must hold a whole rig.*`faces` must be 0 to 1931"),
        ("faces", lambda t: spoil(t, -1), "`faces` must be 0 to 1931, got -1"),
        ("faces", lambda t: t.float(), "`faces` must be whole numbers"),
        (
            "parents",
            lambda t: torch.tensor([-1, 2, 1, 1, 1]),
            "`parents` must name .* joint 1 has 2",
        ),
        ("parents", lambda t: torch.tensor([-1, 0, 9, 1, 1]), "joint 2 has 9"),
        ("v_template", lambda t: spoil(t, NAN), "`v_template` must be finite"),
        ("lbs_weights", lambda t: 2 * t, "`lbs_weights` must sum to 1"),
        ("lbs_weights", lambda t: t[:, :4], r"`lbs_weights` must have shape \(1932, 5\)"),
        ("exprdirs", lambda t: t[:7], r"`exprdirs` must have shape \(1932, 3, \*\)"),
        ("shapedirs", lambda t: t[..., :9], r"`betas` must have shape \(9,\), got \(53,\)"),
    ],
)
def test_arrays_of_a_rig_are_looked_at(folder, name, value, match):
    change(folder / "rig" / "diffusion_pytorch_model.safetensors", **{name: value})
    with pytest.raises(ValueError, match=match):
        Avatar.from_pretrained(folder)


FILES = (
    "avatar.json",
    "avatar.safetensors",
    "rig/config.json",
    "rig/diffusion_pytorch_model.safetensors",
)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "pointer", "random"])
def test_damaged_files_are_named(folder, file, damage):
    path = folder / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "cut": data[: len(data) // 2],
                "pointer": POINTER,
                "random": b"\xff\x00\xfe" * 50,
            }[damage]
        )
    expected = "Git LFS pointer to it; fetch it with `git lfs pull`" if damage == "pointer" else ""
    with pytest.raises((ValueError, FileNotFoundError), match=path.name) as caught:
        Avatar.from_pretrained(folder)
    assert expected in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError) == (damage == "missing")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[1, 2]", "must hold a JSON object, and .* holds list"),
        ("null", "holds NoneType"),
        ("{}", "`format_version` must be 1, got None"),
        ('{"format_version": [1]}', r"must be 1, got \[1\]"),
        ('{"format_version": 1}', "`rig_class` must be one of .*, got None"),
        (
            '{"format_version": 1, "rig_class": ["x"]}',
            r"`rig_class` must be one of .*, got \['x'\]",
        ),
        ("[" * 200_000, "cannot be read as one"),
        ('{"format_version": 1', "cannot be read as one"),
        ("\ud83d", "cannot be read as one"),
    ],
)
def test_configs_of_another_shape_are_refused(folder, text, match):
    (folder / "avatar.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=match):
        Avatar.from_pretrained(folder)


@pytest.mark.parametrize("config", ['{"resolution": "huge"}', "[]", '{"resolution": ["low"]}'])
def test_rigs_of_another_kind_are_refused(folder, config):
    (folder / "rig" / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"rig does not|must hold a JSON object"):
        Avatar.from_pretrained(folder)


@pytest.mark.parametrize("file", FILES)
def test_the_command_says_it_in_one_line(folder, tmp_path, file):
    (folder / file).write_bytes(POINTER)
    result = CliRunner().invoke(app, ["export", str(folder), str(tmp_path / "me.ply")])
    assert result.exit_code == 2
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1
    assert "git lfs pull" in result.output


# Parts that come from elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("opacities", 7.0, r"`opacities` must lie in \[0, 1\], got 7"),
        ("scales", -0.01, "`scales` must be positive"),
        ("colors", 200.0, r"`colors` must be sRGB in \[0, 1\]"),
    ],
)
def test_gaussians_beyond_their_ranges_are_no_avatar(tiny_avatar, name, value, match):
    gaussians = tiny_avatar.gaussians
    broken = replace(gaussians, **{name: spoil(getattr(gaussians, name), value)})
    with pytest.raises(ValueError, match=match):
        Avatar(broken, tiny_avatar.bindings, tiny_avatar.rig, tiny_avatar.betas)


def test_broken_splats_are_left_out_of_the_folder(tiny_avatar, tmp_path, caplog):
    means = spoil(tiny_avatar.gaussians.means, NAN)
    avatar = Avatar(
        replace(tiny_avatar.gaussians, means=means),
        tiny_avatar.bindings,
        tiny_avatar.rig,
        tiny_avatar.betas,
    )
    avatar.save_pretrained(tmp_path)
    assert "1 splats with non-finite values were left out" in caplog.text
    kept = torch.arange(40) != 7
    assert torch.equal(Avatar.from_pretrained(tmp_path).bindings, tiny_avatar.bindings[kept])


def test_motion_that_is_not_finite_is_refused(tiny_avatar):
    params = tiny_avatar.rig_params(num_frames=3)
    jaw = spoil(params.jaw_pose, NAN, index=1)
    with pytest.raises(
        ValueError, match="`rig_params` must be finite, and `jaw_pose` is not in fr"
    ):
        tiny_avatar.animate(replace(params, jaw_pose=jaw))
    with pytest.raises(ValueError, match="at least one frame"):
        tiny_avatar.animate(params[:0])
    with pytest.raises(ValueError, match="`background` must be sRGB"):
        tiny_avatar.render(background=torch.tensor([0.1, NAN, 0.1]))


# Files of tensors and of JSON ---------------------------------------------------------------------


def test_tensors_come_back(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tensors = {"part": base[:, 1:3], "same": base, "turned": base.T.requires_grad_()}
    write_tensors(tensors, tmp_path / "new" / "t.safetensors", metadata={"a": "b"})
    read = read_tensors(tmp_path / "new" / "t.safetensors")
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    with pytest.raises(FileNotFoundError, match="`path` must be a file, and there is none at"):
        read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="there is none at"):
        read_json_object(tmp_path / "none.json")


FULL = """
import resource, signal, sys, torch
from pointillist_hf import Avatar
from pointillist_hf.exporters.tensor_file import write_tensors
avatar = Avatar.from_pretrained(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for write in (lambda path: write_tensors({"a": torch.zeros(10_000)}, path), avatar.save_pretrained):
    try:
        write(sys.argv[1] + ("/avatar.safetensors" if write != avatar.save_pretrained else ""))
    except OSError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_an_oserror(folder):
    """What was there is there."""
    old = {path: path.read_bytes() for path in folder.rglob("*.*")}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("`path` could not be written" in line for line in lines)
    assert old == {path: path.read_bytes() for path in folder.rglob("*.*")}


def test_configs_are_plain_json(saved):
    config = json.loads((saved / "avatar.json").read_text())
    assert config == {"format_version": 1, "rig_class": "ProceduralHeadRig"}
    assert sorted(p.name for p in saved.iterdir()) == ["avatar.json", "avatar.safetensors", "rig"]
