# SPDX-License-Identifier: Apache-2.0
"""FLAME's files: every kind gives the same arrays, and damage is named."""

import os

import numpy as np
import pytest
from fake_flame import NUM_VERTICES, dump, write_flame

from pointillist_hf.rigs.flame.model_file import convert_flame, read_flame


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("chumpy", [None, "ch", "select"])
def test_every_kind_of_pickle_gives_the_same_arrays(protocol, chumpy, flame_arrays, tmp_path):
    path = tmp_path / "generic_model.pkl"
    write_flame(path, flame_arrays, protocol=protocol, chumpy=chumpy)
    flame = read_flame(path)
    assert flame.version == "2020"
    np.testing.assert_array_equal(flame.v_template, flame_arrays["v_template"].astype(np.float32))
    np.testing.assert_array_equal(
        flame.shapedirs, flame_arrays["shapedirs"][..., :300].astype(np.float32)
    )
    np.testing.assert_array_equal(
        flame.exprdirs, flame_arrays["shapedirs"][..., 300:].astype(np.float32)
    )
    np.testing.assert_array_equal(flame.posedirs, flame_arrays["posedirs"].astype(np.float32))
    np.testing.assert_array_equal(flame.J_regressor, flame_arrays["J_regressor"].astype(np.float32))
    np.testing.assert_array_equal(flame.lbs_weights, flame_arrays["weights"].astype(np.float32))
    np.testing.assert_array_equal(flame.faces, flame_arrays["f"])


def test_conversions_keep_numbers_version_and_origin(flame_file, flame_arrays, tmp_path):
    original = read_flame(flame_file)
    convert_flame(flame_file, tmp_path / "mine.safetensors")
    converted = read_flame(tmp_path / "mine.safetensors")
    names = (
        "v_template",
        "faces",
        "shapedirs",
        "exprdirs",
        "posedirs",
        "J_regressor",
        "lbs_weights",
    )
    for name in names:
        np.testing.assert_array_equal(getattr(converted, name), getattr(original, name))
    assert (converted.version, converted.sha256) == (original.version, original.sha256)
    np.savez(tmp_path / "flame2023_Open.npz", **flame_arrays)
    plain = read_flame(tmp_path / "flame2023_Open.npz")
    assert plain.version == "2023_open"
    np.testing.assert_array_equal(plain.posedirs, original.posedirs)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "flame2023_Open.npz",
        "mine.safetensors",
    ]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("generic_model.pkl", "2020"),
        ("male_model.pkl", "2020"),
        ("flame2023.pkl", "2023"),
        ("flame2023_no_jaw.pkl", "2023_no_jaw"),
        ("flame2023_Open.pkl", "2023_open"),
    ],
)
def test_official_names_say_the_version(name, version, flame_file, tmp_path):
    os.link(flame_file, tmp_path / name)
    assert read_flame(tmp_path / name).version == version


def test_other_names_need_the_version(flame_file, tmp_path):
    os.link(flame_file, tmp_path / "mine.pkl")
    with pytest.raises(ValueError, match=r"`version` must be one of 2020, .* got None"):
        read_flame(tmp_path / "mine.pkl")
    with pytest.raises(ValueError, match="got '2019'"):
        read_flame(tmp_path / "mine.pkl", version="2019")
    assert read_flame(tmp_path / "mine.pkl", version="2020").version == "2020"
    convert_flame(flame_file, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match="made from FLAME 2023"):
        read_flame(tmp_path / "mine.safetensors", version="2020")


CHANGES = {
    "v_template": (lambda a: a[:-1], r"`v_template` .* must have shape \(5023, 3\), got"),
    "f": (lambda a: a + NUM_VERTICES, "`f` .* names vertices that are not there"),
    "shapedirs": (lambda a: a[..., :300], "`shapedirs` .* 300 identity directions"),
    "posedirs": (lambda a: a + 1e300, "`posedirs` .* must hold finite numbers"),
    "J_regressor": (lambda a: a[:4], r"`J_regressor` .* must have shape \(5, 5023\)"),
    "weights": (lambda a: 2 * a, "`weights` .* sum to one"),
    "kintree_table": (lambda a: a[:, ::-1], "`kintree_table` .* is not FLAME's"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_arrays_that_are_not_flame_are_refused(name, flame_arrays, tmp_path):
    change, message = CHANGES[name]
    changed = {**flame_arrays, name: change(flame_arrays[name])}
    write_flame(tmp_path / "flame2023.pkl", changed)
    with pytest.raises(ValueError, match=message):
        read_flame(tmp_path / "flame2023.pkl")
    del changed[name]
    np.savez(tmp_path / "flame2023.npz", **changed)
    with pytest.raises(ValueError, match=f"must hold `{name}`"):
        read_flame(tmp_path / "flame2023.npz")


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file at .*flame.is.tue.mpg.de"):
        read_flame(tmp_path / "flame2023.pkl")
    for name, content in (
        ("flame2023.npz", b"PK nonsense"),
        ("flame2023.safetensors", b"nonsense nonsense"),
        ("flame2023.pkl", b"nonsense"),
        ("flame2023.pkl", dump([1, 2])),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_flame(tmp_path / name)
    (tmp_path / "flame2023.obj").touch()
    with pytest.raises(ValueError, match=r"must end in one of .pkl, .npz, .safetensors"):
        read_flame(tmp_path / "flame2023.obj")
    np.savez(tmp_path / "flame2023.npz", v_template=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="plain arrays"):
        read_flame(tmp_path / "flame2023.npz")
