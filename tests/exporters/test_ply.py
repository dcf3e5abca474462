# SPDX-License-Identifier: Apache-2.0
"""The .ply of 3D Gaussian Splatting and that of GaussianAvatars."""

import logging
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from pointillist_hf.exporters.ply import read_bound_ply, read_ply, write_bound_ply, write_ply
from pointillist_hf.geometry.bound_splats import local_to_global
from pointillist_hf.geometry.cameras import orbit_cameras
from pointillist_hf.geometry.structures import BoundSplats
from pointillist_hf.rendering import rasterize

FIELDS = ("means", "quats", "scales", "opacities", "colors")
BOUND_FIELDS = tuple(BoundSplats.__dataclass_fields__)
# The columns of the original, written out once more.
NAMES_17 = [
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
    "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
]  # fmt: skip
NAMES_63 = [*NAMES_17[:9], *(f"f_rest_{i}" for i in range(45)), *NAMES_17[9:], "binding_0"]


def build_bound(count=5, degree=3):
    g = torch.Generator().manual_seed(degree)
    harmonics = (degree + 1) ** 2
    return BoundSplats(
        means=torch.randn(count, 3, generator=g),
        log_scales=torch.randn(count, 3, generator=g),
        quats=torch.randn(count, 4, generator=g),
        opacity_logits=torch.randn(count, generator=g),
        sh=torch.randn(count, harmonics, 3, generator=g),
        bindings=torch.randint(10144, (count,), generator=g),
    )


def write_by_hand(path, rows, names=NAMES_63, *, fmt="binary_little_endian", kind="float"):
    """A file as the original's plyfile writes it."""
    lines = ["ply", f"format {fmt} 1.0", f"element vertex {len(rows)}"]
    lines += [f"property {kind} {name}" for name in names]
    header = "\n".join([*lines, "end_header", ""]).encode()
    order = ">" if "big" in fmt else "<"
    body = b"".join(struct.pack(f"{order}{len(names)}f", *row) for row in rows)
    path.write_bytes(header + body)
    return path


def test_ply_header_and_size(tiny_avatar, tmp_path):
    path = tmp_path / "new" / "me.ply"
    tiny_avatar.export(path)
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 40"]
    assert lines[3:] == [f"property float {name}" for name in NAMES_17]
    assert len(body) == 40 * 17 * 4


def test_ply_round_trip(tiny_avatar, tmp_path):
    tiny_avatar.export(tmp_path / "me.ply")
    restored = read_ply(tmp_path / "me.ply")
    for name in FIELDS:
        expected = getattr(tiny_avatar.gaussians, name)
        torch.testing.assert_close(getattr(restored, name), expected, atol=1e-6, rtol=1e-5)
    view = orbit_cameras([0.0], width=24, height=20)
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


@pytest.mark.parametrize("text", ["", "ply\nformat binary_little_endian 1.0\n", "not a ply"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "me.ply"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a \.ply with a whole header, and .*me\.ply is not"):
        read_ply(path)


def test_colours_that_depend_on_the_view_are_said_to_be_cut(tmp_path, caplog):
    row = [*range(9), *[0.0] * 44, 1.0, *[0.5] * 8]
    path = write_by_hand(tmp_path / "one.ply", [row], NAMES_63[:-1])
    assert torch.equal(read_ply(path).means, torch.tensor([[0.0, 1.0, 2.0]]))
    assert "depend on the view; only their mean is kept" in caplog.text
    caplog.clear()
    read_ply(write_by_hand(tmp_path / "two.ply", [[1.0] * 9 + [0.0] * 53], NAMES_63[:-1]))
    assert not caplog.text


def test_a_file_of_gaussian_avatars_byte_by_byte(tmp_path):
    """63 columns; a value is 100 times its column plus its row."""
    rows = [[100.0 * column + row for column in range(62)] + [10143.0 - row] for row in range(3)]
    path = write_by_hand(tmp_path / "point_cloud.ply", rows)
    splats = read_bound_ply(path, num_faces=10144)
    assert len(splats) == 3 and splats.sh_degree == 3
    assert splats.bindings.tolist() == [10143, 10142, 10141]
    assert splats.bindings.dtype == torch.int64
    one = splats[1:2]
    assert one.means.tolist() == [[1, 101, 201]]
    assert one.sh[0, 0].tolist() == [601, 701, 801]
    for channel in range(3):  # 15 of red, then 15 of green, then 15 of blue
        start = 901 + 1500 * channel
        assert one.sh[0, 1:, channel].tolist() == [start + 100 * k for k in range(15)]
    assert one.opacity_logits.tolist() == [5401]
    assert one.log_scales.tolist() == [[5501, 5601, 5701]]
    assert one.quats.tolist() == [[5801, 5901, 6001, 6101]]


def test_what_is_written_is_the_same_file_again(tmp_path):
    rows = np.random.default_rng(0).normal(size=(6, 63)).astype(np.float32)
    rows[:, 3:6], rows[:, 62] = 0, [0, 5, 5, 10143, 7, 2**24 - 1]
    original = write_by_hand(tmp_path / "a.ply", rows)
    write_bound_ply(read_bound_ply(original), tmp_path / "b.ply")
    data = (tmp_path / "b.ply").read_bytes()
    assert data == original.read_bytes()
    assert len(data) == data.index(b"end_header\n") + 11 + 252 * 6


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_bound_round_trip(tmp_path, degree):
    splats = build_bound(degree=degree)
    write_bound_ply(splats, tmp_path / "me.ply")
    restored = read_bound_ply(tmp_path / "me.ply", num_faces=10144)
    for name in BOUND_FIELDS:
        assert torch.equal(getattr(restored, name), getattr(splats, name)), name
    write_bound_ply(splats, tmp_path / "me.ply", sh_degree=3)
    header, _, body = (tmp_path / "me.ply").read_bytes().partition(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines()[3:]]
    assert names == NAMES_63 and len(body) == 5 * 252
    padded = read_bound_ply(tmp_path / "me.ply").sh
    assert torch.equal(padded[:, : splats.sh.shape[1]], splats.sh)
    assert (padded[:, splats.sh.shape[1] :] == 0).all()


def test_no_splats_at_all(tmp_path):
    write_bound_ply(build_bound(0), tmp_path / "none.ply")
    assert len(read_bound_ply(tmp_path / "none.ply")) == 0


def test_avatars_leave_for_gaussian_avatars(tiny_avatar, tmp_path):
    path = tmp_path / "me.ga.ply"
    tiny_avatar.export(path)
    rig = tiny_avatar.rig
    splats = read_bound_ply(path, num_faces=rig.num_faces)
    assert torch.equal(splats.bindings, tiny_avatar.bindings) and splats.sh_degree == 3
    # Their renderer poses the mesh and sets the splats onto it: our own triangle mode.
    pose = tiny_avatar.rig_params({"mouthSmile": 1.0}, jaw_pose=[0.2, 0.0, 0.0])
    corners = rig(pose)[0][rig.faces[splats.bindings]]
    placed = local_to_global(splats, corners)
    expected = tiny_avatar.animate(pose, mode="triangle").gaussians[0]
    torch.testing.assert_close(placed.means, expected.means, rtol=0, atol=1e-5)
    torch.testing.assert_close(placed.colors, expected.colors, rtol=0, atol=1e-5)
    torch.testing.assert_close(placed.opacities, expected.opacities, rtol=0, atol=1e-5)
    same = (placed.quats * expected.quats).sum(-1).abs()
    torch.testing.assert_close(same, torch.ones_like(same), rtol=0, atol=1e-4)


def test_bound_splats_that_are_none_are_left_out(tmp_path, caplog):
    splats = build_bound()
    splats.log_scales[1, 2], splats.sh[3, 7, 0] = -torch.inf, torch.nan
    write_bound_ply(splats, tmp_path / "me.ply")
    assert "2 splats with non-finite values were left out" in caplog.text
    kept = torch.tensor([0, 2, 4])
    assert torch.equal(read_bound_ply(tmp_path / "me.ply").bindings, splats.bindings[kept])


ROW = [0.5] * 62 + [3.0]


@pytest.mark.parametrize(("value", "found"), [(3.5, "3.5"), (-1.0, "-1.0"), (10144.0, "10144.0")])
def test_bindings_that_are_no_faces_are_refused(tmp_path, value, found):
    path = write_by_hand(tmp_path / "me.ply", [ROW, [*ROW[:-1], value]])
    match = rf"to faces 0 to 10143, and .*me\.ply has {found} in row 1 of its column binding_0"
    with pytest.raises(ValueError, match=match):
        read_bound_ply(path, num_faces=10144)
    if value != 10144:
        with pytest.raises(ValueError, match="to faces 0 upwards"):
            read_bound_ply(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [("opacity", "nan"), ("scale_1", "inf"), ("x", "-inf"), ("f_rest_7", "nan")],
)
def test_numbers_that_are_not_finite_are_refused(tmp_path, column, value):
    row, index = list(ROW), NAMES_63.index(column)
    row[index] = float(value)
    path = write_by_hand(tmp_path / "me.ply", [ROW, row])
    match = rf"finite numbers, and .*me\.ply has {value} in row 1 of its column {column}"
    with pytest.raises(ValueError, match=match):
        read_bound_ply(path)


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (NAMES_63[:-1], r"column binding_0, and .*me\.ply does not: it is an ordinary 3DGS file"),
        (["x", "y", "z", "binding_0"], r"me\.ply has no column f_dc_0, f_dc_1, f_dc_2, opacity"),
        ([n for n in NAMES_63 if n != "f_rest_44"], "holds 44"),
        ([n for n in NAMES_63 if n not in ("f_rest_0", "f_rest_1", "f_rest_2")], "holds 42"),
        ([n.replace("f_rest_44", "f_rest_45") for n in NAMES_63], "must hold 0, 9, 24 or 45"),
    ],
)
def test_other_columns_are_refused(tmp_path, names, error):
    path = write_by_hand(tmp_path / "me.ply", [[1.0] * len(names)], names)
    with pytest.raises(ValueError, match=error):
        read_bound_ply(path)


def test_splats_of_triangles_are_not_taken_for_a_cloud(tmp_path):
    path = write_by_hand(tmp_path / "me.ply", [ROW])
    with pytest.raises(ValueError, match=r"me\.ply are in the frames of triangles"):
        read_ply(path)


@pytest.mark.parametrize("cut", [1, 252, 1000])
def test_bound_files_that_are_cut_off_are_refused(tmp_path, cut):
    path = write_by_hand(tmp_path / "me.ply", [ROW, ROW, ROW])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"`path` must .*me\.ply is"):
        read_bound_ply(path)


def test_text_is_refused(tmp_path):
    path = write_by_hand(tmp_path / "me.ply", [ROW], fmt="ascii")
    with pytest.raises(ValueError, match=r"binary_big_endian 1.0, and .*me\.ply has ascii"):
        read_bound_ply(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ((b"element vertex 1\n", b"element vertex many\n"), "the line 'element vertex many'"),
        ((b"element vertex 1\n", b"element vertex -1\n"), "the line 'element vertex -1'"),
        ((b"element vertex 1\n", b""), "the line 'property float x'"),
        ((b"element vertex 1\n", b"element face 1\n"), "one element, vertex, .*it has face"),
        ((b"property float x\n", b"element vertex 0\nproperty float x\n"), "vertex, vertex"),
        ((b"property float x\n", b"property list uchar int x\n"), r"cut off|no column x|goes on"),
        ((b"property float x\n", b"property list float int x\n"), "the line 'property list float"),
        ((b"property float x\n", b"property quad x\n"), "the line 'property quad x'"),
        ((b"property float nx\n", b"property float x\n"), "one of vertex twice"),
        ((b" 1.0\n", b" 2.0\n"), "has binary_little_endian 2.0"),
        ((b"format", b"comment"), "has no format"),
        ((b"element vertex 1\n", b"element vertex 999999999999\n"), "is cut off or damaged"),
    ],
)
def test_other_headers_are_refused(tmp_path, change, match):
    path = write_by_hand(tmp_path / "me.ply", [ROW])
    path.write_bytes(path.read_bytes().replace(*change))
    with pytest.raises(ValueError, match=match):
        read_bound_ply(path)


def test_columns_of_other_types_and_comments_are_read(tmp_path):
    header = "ply\nformat binary_little_endian 1.0\ncomment made by hand\nelement vertex 1\n"
    names = [*NAMES_17, "binding_0"]
    types = ["double"] * 17 + ["int"]
    header += "".join(f"property {t} {n}\n" for t, n in zip(types, names, strict=True))
    body = struct.pack("<17di", *range(17), 9976)
    (tmp_path / "me.ply").write_bytes(f"{header}end_header\n".encode() + body)
    splats = read_bound_ply(tmp_path / "me.ply")
    assert splats.bindings.tolist() == [9976] and splats.means.tolist() == [[0, 1, 2]]


def test_degrees_below_that_of_the_splats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`sh_degree` must be at least 2, the degree of the"):
        write_bound_ply(build_bound(degree=2), tmp_path / "me.ply", sh_degree=1)
    assert not list(tmp_path.iterdir())


def test_missing_files(tmp_path):
    for read in (read_ply, read_bound_ply):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "nothing.ply")
