# SPDX-License-Identifier: Apache-2.0
"""Where face landmarks lie on rigs."""

import numpy as np
import pytest
import torch
from fake_flame import fake_arrays, write_flame

from pointillist_hf.geometry.triangles import interpolate_corners
from pointillist_hf.rigs.flame_rig import FlameHeadRig
from pointillist_hf.rigs.landmark_places import OUTER_CANTHI
from pointillist_hf.rigs.landmark_sources import (
    IBUG,
    find_landmark_places,
    places_from_embedding,
    places_from_ibug,
)
from pointillist_hf.rigs.procedural_rig import ProceduralHeadRig


@pytest.fixture(scope="module")
def full_rig():
    return ProceduralHeadRig("full")


@pytest.fixture(scope="module")
def bare_flame(tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "flame2023.pkl"
    write_flame(path, fake_arrays())
    return FlameHeadRig.from_flame(path, add_teeth=False)


def points_of(rig, places):
    points = interpolate_corners(rig.v_template, rig.faces, places.faces, places.barycentric)
    return dict(zip(places.ids.tolist(), points, strict=True))


def write_embedding(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "lmk_face_idx": rng.integers(0, 9_976, 105),
        "lmk_b_coords": rng.dirichlet(np.ones(3), 105),
        "landmark_indices": rng.permutation(468)[:105],
        **changes,
    }
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return arrays


def test_both_resolutions_agree(tiny_rig, full_rig):
    low, full = (points_of(rig, find_landmark_places(rig)) for rig in (tiny_rig, full_rig))
    assert low.keys() == full.keys()
    distances = torch.stack([(low[i] - full[i]).norm() for i in low])
    assert distances.mean() < 1e-3
    assert distances.max() < 8e-3


def test_landmarks_lie_where_their_names_say(full_rig):
    points = points_of(full_rig, find_landmark_places(full_rig))
    right, left = (points[i] for i in OUTER_CANTHI)
    assert 0.085 < (left - right).norm() < 0.105
    assert left[0] > 0 > right[0]
    for middle in (1, 4, 168, 13, 14):
        assert points[middle][0].abs() < 1e-3
    heights = [points[i][1] for i in (168, 4, 13, 14)]
    assert heights == sorted(heights, reverse=True)
    assert points[4][2] > points[13][2] > points[33][2]


def test_pupils_and_outline(full_rig):
    places = find_landmark_places(full_rig)
    left, right = full_rig.v_template[places.pupils]
    assert places.pupils[0] in full_rig.mask("eye_left")
    assert places.pupils[1] in full_rig.mask("eye_right")
    torch.testing.assert_close(left, right * torch.tensor([-1.0, 1, 1]), atol=1e-4, rtol=0)
    assert not torch.isin(places.outline_vertices, full_rig.mask("ear_left")).any()
    assert len(places.outline_vertices) > 500
    held = {
        name
        for name, prior in zip(full_rig.shape_names, places.shape_priors, strict=True)
        if prior > 1
    }
    assert {"neck_length", "occiput", "ear_size"} <= held
    assert not {"nose_length", "jaw_width"} & held


def test_the_table_and_the_rigs_own_landmarks_agree(full_rig):
    from_table, own = (
        points_of(full_rig, places)
        for places in (find_landmark_places(full_rig), places_from_ibug(full_rig))
    )
    shared = from_table.keys() & own.keys()
    assert len(shared) > 40
    distances = torch.stack([(from_table[i] - own[i]).norm() for i in shared])
    assert distances.median() < 4e-3


def test_a_table_of_another_mesh_is_not_used(tiny_rig, full_rig):
    # Saved rigs bring their own arrays: a mesh that the table does not know has its 68.
    other = ProceduralHeadRig("low")
    for name in ("faces", "landmark_faces"):
        setattr(other, name, getattr(full_rig, name))
    other.v_template = full_rig.v_template
    other.lbs_weights = full_rig.lbs_weights
    other.landmark_barycentric = full_rig.landmark_barycentric
    assert len(find_landmark_places(other).ids) == 51
    assert len(find_landmark_places(tiny_rig).ids) == 386


def test_rigs_without_landmarks_are_refused(bare_flame):
    with pytest.raises(ValueError, match="For FLAME pass `landmarks` to `from_flame`"):
        find_landmark_places(bare_flame)


def test_flames_own_file_of_105(bare_flame, tmp_path):
    arrays = write_embedding(tmp_path / "embedding.npz")
    places = places_from_embedding(bare_flame, tmp_path / "embedding.npz")
    assert places.ids.tolist() == arrays["landmark_indices"].tolist()
    assert len(places.outline_ids) == 0
    assert places.expression_range == (-3.0, 3.0)
    point = points_of(bare_flame, places)[int(arrays["landmark_indices"][7])]
    corners = bare_flame.v_template[bare_flame.faces[arrays["lmk_face_idx"][7]]]
    share = torch.tensor(arrays["lmk_b_coords"][7], dtype=torch.float32)
    torch.testing.assert_close(point, share @ corners, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmk_face_idx": np.full(105, 10**6)}, "lie on no face"),
        ({"lmk_b_coords": np.full((105, 3), np.nan)}, "lie on no face"),
        ({"landmark_indices": np.full(105, 468)}, "lie on no face"),
        ({"lmk_face_idx": np.zeros(105)}, "must hold whole numbers"),
        ({"lmk_b_coords": np.ones((105, 2))}, "must hold whole numbers"),
        ({"landmark_indices": None}, r"must be an \.npz file"),
        ({"lmk_face_idx": np.array([{}], dtype=object)}, r"must be an \.npz file"),
    ],
)
def test_bad_files_of_105_are_refused(changes, message, bare_flame, tmp_path):
    write_embedding(tmp_path / "embedding.npz", **changes)
    with pytest.raises(ValueError, match=message):
        places_from_embedding(bare_flame, tmp_path / "embedding.npz")


def test_missing_and_foreign_files_are_refused(bare_flame, tmp_path):
    with pytest.raises(FileNotFoundError, match="none at"):
        places_from_embedding(bare_flame, tmp_path / "none.npz")
    (tmp_path / "embedding.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"must be an \.npz file"):
        places_from_embedding(bare_flame, tmp_path / "embedding.npz")


def test_ids_of_ibug_are_landmarks():
    assert len(IBUG) == 68
    assert all(0 <= i < 468 for i in IBUG)
