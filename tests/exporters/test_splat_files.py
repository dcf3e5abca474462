# SPDX-License-Identifier: Apache-2.0
"""Files for viewers of splats, opened by readers that are not ours."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from pointillist_hf.avatar import SPLAT_WRITERS
from pointillist_hf.exporters.gltf import write_glb
from pointillist_hf.exporters.ply import write_bound_ply, write_ply
from pointillist_hf.exporters.splat import write_splat
from pointillist_hf.exporters.spz import write_spz
from pointillist_hf.geometry.bound_splats import SH_C0, global_to_local
from pointillist_hf.geometry.structures import Gaussians

every_format = pytest.mark.parametrize("suffix", SPLAT_WRITERS)


def build_gaussians(count=300, spread=0.1):
    g = torch.Generator().manual_seed(0)
    return Gaussians(
        means=spread * torch.randn(count, 3, generator=g),
        quats=torch.randn(count, 4, generator=g),
        scales=torch.exp(-5 + torch.randn(count, 3, generator=g)),
        opacities=torch.rand(count, generator=g),
        colors=torch.rand(count, 3, generator=g),
    )


def angles_between(one, other):
    """Degrees between rotations, by quaternions wxyz of any length. [N]"""
    one, other = (np.asarray(q, np.float64) for q in (one, other))
    one, other = (q / np.linalg.norm(q, axis=-1, keepdims=True) for q in (one, other))
    cosines = np.abs((one * other).sum(-1)).clip(0, 1)
    return np.degrees(2 * np.arccos(cosines))


def read_splat(path):
    """By the description of the format: 32 bytes a splat."""
    rows = [struct.unpack("<6f8B", path.read_bytes()[i : i + 32]) for i in range(0, 9600, 32)]
    rows = np.array(rows)
    return rows[:, :3], rows[:, 3:6], rows[:, 6:10] / 255, (rows[:, 10:] - 128) / 128


def test_splat(tmp_path):
    gaussians, path = build_gaussians(), tmp_path / "me.splat"
    write_splat(gaussians, path)
    assert path.stat().st_size == 300 * 32
    means, scales, colors, quats = read_splat(path)
    np.testing.assert_array_equal(means, gaussians.means)
    np.testing.assert_array_equal(scales, gaussians.scales)
    expected = torch.cat([gaussians.colors, gaussians.opacities[:, None]], -1)
    np.testing.assert_allclose(colors, expected, atol=0.5001 / 255)
    assert angles_between(quats, gaussians.quats).max() < 1


def test_splat_is_that_of_gsplat(tmp_path):
    exporter = pytest.importorskip("gsplat.exporter")
    gaussians, path = build_gaussians(), tmp_path / "me.splat"
    write_splat(gaussians, path)
    data = exporter.splat2splat_bytes(
        gaussians.means,
        gaussians.scales.log(),
        gaussians.quats,
        torch.logit(gaussians.opacities),
        (gaussians.colors - 0.5) / SH_C0,
    )
    theirs = np.frombuffer(data, np.uint8).reshape(-1, 32)
    ours = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 32)
    ours = ours[np.lexsort(ours[:, :12].T)]
    theirs = theirs[np.lexsort(theirs[:, :12].T)]
    np.testing.assert_array_equal(ours[:, :12], theirs[:, :12])
    # Theirs rounds bytes down.
    assert np.abs(ours[:, 24:].astype(int) - theirs[:, 24:]).max() <= 1


@pytest.mark.parametrize("spread", [0.1, 100.0, 1e6])
def test_spz(tmp_path, spread):
    gsply = pytest.importorskip("gsply")
    gaussians = build_gaussians(spread=spread)
    write_spz(gaussians, tmp_path / "me.spz")
    read = gsply.read_spz(tmp_path / "me.spz")
    resolution = 2.0**-16 if spread < 1 else gaussians.means.abs().max() * 2.0**-21
    assert np.abs(read.means - gaussians.means.numpy()).max() <= resolution
    assert np.abs(read.scales - gaussians.scales.log().numpy()).max() <= 0.5001 / 16
    opacities = 1 / (1 + np.exp(-read.opacities))
    np.testing.assert_allclose(opacities, gaussians.opacities, atol=0.51 / 255)
    np.testing.assert_allclose(0.5 + SH_C0 * read.sh0, gaussians.colors, atol=0.01)
    assert angles_between(read.quats, gaussians.quats).max() < 0.25


def test_spz_is_a_tenth_and_always_the_same(tmp_path):
    gaussians = build_gaussians()
    for name in ("one.spz", "two.spz"):
        write_spz(gaussians, tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.spz", "two.spz"))
    assert one == two and len(one) <= 300 * 20 + 100


def test_spz_has_bounds(tmp_path):
    gaussians = build_gaussians()
    far = replace(gaussians, means=gaussians.means + 8.4e6)
    with pytest.raises(ValueError, match="within 8388608 m of the origin"):
        write_spz(far, tmp_path / "me.spz")
    write_spz(replace(gaussians, means=gaussians.means + 8.38e6), tmp_path / "me.spz")
    assert (tmp_path / "me.spz").is_file()


def test_glb(tmp_path):
    pygltflib = pytest.importorskip("pygltflib")
    gaussians = build_gaussians()
    write_glb(gaussians, tmp_path / "me.glb")
    gltf = pygltflib.GLTF2().load(str(tmp_path / "me.glb"))
    assert gltf.extensionsUsed == ["KHR_gaussian_splatting"] and not gltf.extensionsRequired
    primitive = gltf.meshes[gltf.nodes[gltf.scenes[gltf.scene].nodes[0]].mesh].primitives[0]
    assert primitive.mode == pygltflib.POINTS
    assert primitive.extensions["KHR_gaussian_splatting"] == {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
    }

    def read(name):
        accessor = gltf.accessors[getattr(primitive.attributes, name)]
        view = gltf.bufferViews[accessor.bufferView]
        start = view.byteOffset + (accessor.byteOffset or 0)
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor.type]
        kind = np.uint8 if accessor.componentType == pygltflib.UNSIGNED_BYTE else np.float32
        values = np.frombuffer(gltf.binary_blob(), kind, accessor.count * width, start)
        return accessor, values.reshape(-1, width)

    accessor, means = read("POSITION")
    np.testing.assert_array_equal(means, gaussians.means)
    np.testing.assert_allclose(accessor.min, means.min(0))
    np.testing.assert_allclose(accessor.max, means.max(0))
    prefix = "KHR_gaussian_splatting:"
    quats = read(f"{prefix}ROTATION")[1]
    np.testing.assert_allclose(np.linalg.norm(quats, axis=1), 1, atol=1e-6)
    assert angles_between(quats[:, [3, 0, 1, 2]], gaussians.quats).max() < 0.1
    np.testing.assert_array_equal(read(f"{prefix}SCALE")[1], gaussians.scales)
    np.testing.assert_array_equal(read(f"{prefix}OPACITY")[1][:, 0], gaussians.opacities)
    colors = 0.5 + SH_C0 * read(f"{prefix}SH_DEGREE_0_COEF_0")[1]
    np.testing.assert_allclose(colors, gaussians.colors, atol=1e-6)
    accessor, points = read("COLOR_0")
    assert accessor.normalized
    linear = ((gaussians.colors + 0.055) / 1.055) ** 2.4
    bright = gaussians.colors > 0.05
    np.testing.assert_allclose(points[:, :3][bright] / 255, linear[bright], atol=0.51 / 255)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_chunks_of_a_glb_are_whole_words(tmp_path, count):
    write_glb(build_gaussians(count), tmp_path / "me.glb")
    data = (tmp_path / "me.glb").read_bytes()
    magic, version, length, json_length, json_kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, json_kind) == (b"glTF", 2, len(data), b"JSON")
    description = json.loads(data[20 : 20 + json_length])
    body_length, body_kind = struct.unpack("<I4s", data[20 + json_length : 28 + json_length])
    assert body_kind == b"BIN\0" and 28 + json_length + body_length == len(data)
    assert json_length % 4 == body_length % 4 == 0
    assert description["buffers"][0]["byteLength"] <= body_length


def test_a_glb_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"at least one finite splat for a \.glb"):
        write_glb(build_gaussians()[:0], tmp_path / "me.glb")
    assert not list(tmp_path.iterdir())


def test_ply(tmp_path):
    gsply = pytest.importorskip("gsply")
    gaussians = build_gaussians()
    write_ply(gaussians, tmp_path / "me.ply")
    read = gsply.plyread(tmp_path / "me.ply")
    np.testing.assert_array_equal(read.means, gaussians.means)
    np.testing.assert_allclose(read.scales, gaussians.scales.log(), atol=1e-6)
    np.testing.assert_allclose(read.quats, gaussians.quats, atol=1e-6)
    np.testing.assert_allclose(read.opacities, torch.logit(gaussians.opacities), atol=1e-5)
    np.testing.assert_allclose(0.5 + SH_C0 * read.sh0, gaussians.colors, atol=1e-6)


def test_bound_ply_by_plyfile(tmp_path):
    """The reader that GaussianAvatars itself uses; its licence keeps it out of our extras."""
    plyfile = pytest.importorskip("plyfile")
    corners = torch.randn(300, 3, 3)
    splats = global_to_local(build_gaussians(), torch.arange(300), corners)
    write_bound_ply(splats, tmp_path / "me.ply", sh_degree=3)
    vertex = plyfile.PlyData.read(tmp_path / "me.ply").elements[0]
    assert len(vertex.properties) == 63
    np.testing.assert_array_equal(vertex["binding_0"], np.arange(300))
    for i, name in enumerate("xyz"):
        np.testing.assert_array_equal(vertex[name], splats.means[:, i])
    np.testing.assert_array_equal(vertex["opacity"], splats.opacity_logits)


@every_format
@pytest.mark.parametrize(
    ("name", "value"),
    [("means", float("nan")), ("colors", float("inf")), ("quats", float("nan")), ("scales", 0.0)],
)
def test_splats_that_are_none_are_left_out(tmp_path, caplog, suffix, name, value):
    gaussians = build_gaussians(20)
    broken = getattr(gaussians, name).clone()
    broken[7], broken[11, 0] = value, value
    keep = (torch.arange(20) != 7) & (torch.arange(20) != 11)
    SPLAT_WRITERS[suffix](replace(gaussians, **{name: broken}), tmp_path / f"one{suffix}")
    assert "2 splats with non-finite values were left out" in caplog.text
    caplog.clear()
    SPLAT_WRITERS[suffix](gaussians[keep], tmp_path / f"two{suffix}")
    assert not caplog.text
    one, two = (tmp_path / f"{n}{suffix}" for n in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@every_format
def test_opacities_and_colours_at_the_limits(tmp_path, suffix):
    gaussians = build_gaussians(4)
    gaussians = replace(
        gaussians,
        opacities=torch.tensor([0.0, 1.0, 0.0, 1.0]),
        colors=torch.tensor([0.0, 1.0, -0.5, 1.5])[:, None].expand(4, 3).requires_grad_(),
    )
    SPLAT_WRITERS[suffix](gaussians, tmp_path / f"me{suffix}")
    assert (tmp_path / f"me{suffix}").stat().st_size > 0


@every_format
@pytest.mark.parametrize("opacity", [7.0, 1.01, -0.5])
def test_opacities_beyond_their_range_are_refused(tmp_path, suffix, opacity):
    gaussians = build_gaussians(4)
    opacities = torch.tensor([0.2, opacity, float("nan"), 1.0])
    with pytest.raises(
        ValueError, match=rf"`opacities` must lie in \[0, 1\], got {opacity:g}; of l"
    ):
        SPLAT_WRITERS[suffix](replace(gaussians, opacities=opacities), tmp_path / f"me{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz"])
def test_no_splats_at_all(tmp_path, suffix):
    SPLAT_WRITERS[suffix](build_gaussians()[:0], tmp_path / f"me{suffix}")
    assert (tmp_path / f"me{suffix}").is_file()
