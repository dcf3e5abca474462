# SPDX-License-Identifier: Apache-2.0
"""Splats in .ply files as other programs write them."""

import math
import struct

import numpy as np
import pytest
import torch

from pointillist_hf.exporters.ply import REQUIRED, read_bound_ply, read_ply, write_bound_ply

# Two splats; a value is 10 times its column, by name, plus its row.
VALUES = {name: [0.1 * i, 0.1 * i + 0.01] for i, name in enumerate(REQUIRED)}


def write_foreign(
    path, *, names=REQUIRED, kinds=None, before="", after="", head=b"", tail=b"", nl="\n",
    order="<", values=VALUES, extra=(),
):  # fmt: skip
    """A file with other elements around the splats, whose bytes are given."""
    kinds = {**dict.fromkeys(names, "float"), **(kinds or {})}
    codes = {"float": "f", "double": "d", "uchar": "B", "int": "i"}
    fmt = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    lines = [
        "ply",
        f"format {fmt} 1.0",
        *before.split("|")[: bool(before) * 99],
        "element vertex 2",
    ]
    lines += [*(f"property {kinds[name]} {name}" for name in names), *extra]
    lines += [*after.split("|")[: bool(after) * 99], "end_header", ""]
    layout = order + "".join(codes[kinds[name]] for name in names)
    rows = [struct.pack(layout, *(values[name][i] for name in names)) for i in range(2)]
    path.write_bytes(nl.join(lines).encode("latin-1") + head + b"".join(rows) + tail)
    return path


@pytest.fixture
def expected(tmp_path):
    return read_ply(write_foreign(tmp_path / "expected.ply"))


def check_same(read, expected):
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert torch.equal(getattr(read, name), getattr(expected, name)), name


def test_values_arrive_in_their_places(expected):
    assert expected.means.tolist()[0] == pytest.approx([0.0, 0.1, 0.2])
    assert expected.scales[1].log().tolist() == pytest.approx([0.71, 0.81, 0.91])
    assert expected.quats[0].tolist() == pytest.approx([1.0, 1.1, 1.2, 1.3])


def list_rows(*rows):
    return b"".join(struct.pack(f"<B{len(row)}i", len(row), *row) for row in rows)


CAMERA = "element camera 1|property float focal|property uchar model"


@pytest.mark.parametrize(
    "around",
    [
        {"nl": "\r\n"},
        {"nl": "\r"},
        {"names": REQUIRED[::-1]},
        {"names": sorted(REQUIRED)},
        {"order": ">"},
        {"before": "comment made by hand: \xe9|obj_info scanned|comment"},
        {"after": "comment element face 3"},
        {"before": CAMERA, "head": struct.pack("<fB", 1.5, 2)},
        {"before": CAMERA, "head": b"endnl", "after": "element version 3|property uchar v",
         "tail": b"\1\0\0", "nl": "\r\n"},
        {"after": "element face 0|property list uchar int vertex_indices"},
        {"after": "element face 2|property list uchar int vertex_indices|property uchar flag",
         "tail": struct.pack("<B3iBB2iB", 3, 0, 1, 1, 7, 2, 1, 0, 9)},
        {"before": "element strip 2|property list uchar int ids", "head": list_rows([5, 6], [])},
        {"after": "element nothing 4"},
        {"tail": b"\n"},
    ],
)  # fmt: skip
def test_what_else_a_file_holds_is_passed_over(tmp_path, expected, around):
    check_same(read_ply(write_foreign(tmp_path / "me.ply", **around)), expected)


def test_other_columns_are_passed_over(tmp_path, expected):
    names = ("red", *REQUIRED[:5], "confidence", *REQUIRED[5:], "label")
    values = {**VALUES, "red": [255, 0], "confidence": [math.nan, math.inf], "label": [-1, 7]}
    kinds = {"red": "uchar", "confidence": "double", "label": "int"}
    path = write_foreign(tmp_path / "me.ply", names=names, kinds=kinds, values=values)
    check_same(read_ply(path), expected)


def test_doubles_are_rounded_once(tmp_path):
    kinds = dict.fromkeys(REQUIRED, "double")
    values = {name: [np.pi * i - 5, np.e * i - 5] for i, name in enumerate(REQUIRED)}
    read = read_ply(write_foreign(tmp_path / "me.ply", kinds=kinds, values=values))
    assert read.means.tolist() == [
        [np.float32(values[name][row]) for name in ("x", "y", "z")] for row in range(2)
    ]
    values["y"] = [0.0, 1e300]
    with pytest.raises(ValueError, match="has inf in row 1 of its column y"):
        read_ply(write_foreign(tmp_path / "me.ply", kinds=kinds, values=values))


def test_lists_in_the_splats_are_passed_over(tmp_path, expected):
    path = write_foreign(tmp_path / "plain.ply", extra=["property list uchar int neighbours"])
    data = path.read_bytes()
    start = data.index(b"end_header\n") + 11
    row = 4 * len(REQUIRED)
    rows = [data[start + i * row : start + (i + 1) * row] for i in range(2)]
    lists = list_rows([3, 4, 5]), list_rows([])
    both = b"".join(part for pair in zip(rows, lists, strict=True) for part in pair)
    path.write_bytes(data[:start] + both)
    check_same(read_ply(path), expected)
    path.write_bytes(data[:start] + both[:-1])
    with pytest.raises(
        ValueError, match=r"2 rows of their lists of its element vertex.* is cut off"
    ):
        read_ply(path)


@pytest.mark.parametrize(
    ("logits", "opacities"),
    [
        ([math.inf, -math.inf], [1.0, 0.0]),
        ([200.0, -200.0], [1.0, 0.0]),
        ([0.0, math.inf], [0.5, 1]),
    ],
)
def test_infinite_logits_are_opaque_and_clear(tmp_path, logits, opacities):
    path = write_foreign(tmp_path / "me.ply", values={**VALUES, "opacity": logits})
    assert read_ply(path).opacities.tolist() == opacities


def test_infinite_logits_stay_with_bound_splats(tmp_path):
    """Written as the largest number, so that readers that refuse infinity take the file."""
    names = (*REQUIRED, "binding_0")
    values = {**VALUES, "opacity": [math.inf, -math.inf], "binding_0": [3, 1]}
    path = write_foreign(tmp_path / "me.ply", names=names, values=values)
    splats = read_bound_ply(path)
    write_bound_ply(splats, tmp_path / "again.ply")
    again = read_bound_ply(tmp_path / "again.ply")
    assert again.bindings.tolist() == [3, 1] and again.opacity_logits.isfinite().all()
    torch.testing.assert_close(
        again.opacity_logits.sigmoid(), torch.tensor([1.0, 0.0]), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("around", "match"),
    [
        ({"before": CAMERA, "head": b""}, "is cut off or damaged"),
        ({"tail": b"\1\2\3"}, "must end with its last element, .* goes on for 3 bytes"),
        ({"after": "element version 3|property uchar v", "tail": b"\1\0"}, "its element version"),
        ({"after": "element face 9|property list uchar int ids"}, "9 rows of their lists"),
        ({"after": "element face 1|property list int int ids", "tail": b"\xff\xff\xff\x7f"},
         "1 rows of their lists"),
        ({"before": "property float early"}, "the line 'property float early'"),
        ({"before": "surprise"}, "the line 'surprise'"),
        ({"names": [n for n in REQUIRED if n != "rot_3"]}, r"me\.ply has no column rot_3"),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path, around, match):
    with pytest.raises(ValueError, match=match):
        read_ply(write_foreign(tmp_path / "me.ply", **around))


def test_readers_that_are_not_ours_agree(tmp_path, expected):
    gsply = pytest.importorskip("gsply")
    names = ["x", "y", "z", "nx", "ny", "nz", *REQUIRED[3:]]
    values = {**VALUES, "nx": [0, 0], "ny": [0, 0], "nz": [0, 0]}
    read = gsply.plyread(write_foreign(tmp_path / "me.ply", names=names, values=values))
    np.testing.assert_array_equal(read.means, expected.means)
    np.testing.assert_allclose(read.scales, expected.scales.log(), atol=1e-6)
