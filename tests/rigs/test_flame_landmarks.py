# SPDX-License-Identifier: Apache-2.0
"""Landmarks on FLAME come from a file of their own."""

import numpy as np
import pytest
import torch
from fake_flame import random_params

from pointillist_hf import FlameHeadRig


def write_embedding(path, **changes):
    rng = np.random.default_rng(0)
    barycentric = rng.random((1, 70, 3))
    embedding = {
        "full_lmk_faces_idx": rng.integers(0, 9_976, (1, 70)),
        "full_lmk_bary_coords": barycentric / barycentric.sum(-1, keepdims=True),
        **changes,
    }
    np.save(path, np.array(embedding, dtype=object), allow_pickle=True)
    return embedding


def test_landmarks_come_from_their_own_file(flame_rig, flame_file, tmp_path):
    with pytest.raises(ValueError, match="`landmarks` must be given to `from_flame`"):
        flame_rig.landmarks(flame_rig(flame_rig.neutral()))
    embedding = write_embedding(tmp_path / "landmarks.npy")
    marked = FlameHeadRig.from_flame(flame_file, landmarks=tmp_path / "landmarks.npy")
    vertices = marked(random_params(marked))
    points = marked.landmarks(vertices)
    assert points.shape == (2, 68, 3)
    face = embedding["full_lmk_faces_idx"][0, 30]
    share = torch.tensor(embedding["full_lmk_bary_coords"][0, 30], dtype=torch.float32)
    expected = (share[:, None] * vertices[1, marked.faces[face]]).sum(0)
    torch.testing.assert_close(points[1, 30], expected, atol=1e-6, rtol=0)
    marked.save_pretrained(tmp_path / "rig")
    loaded = FlameHeadRig.from_pretrained(tmp_path / "rig")
    assert torch.equal(loaded.landmark_faces, marked.landmark_faces)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"full_lmk_faces_idx": np.full((1, 70), 10**6)}, "lie on no face"),
        ({"full_lmk_bary_coords": np.ones((1, 70, 3))}, "lie on no face"),
        ({"full_lmk_faces_idx": np.zeros((1, 51), int)}, "at least 68 landmarks"),
        ({"full_lmk_faces_idx": np.zeros((1, 70))}, "at least 68 landmarks"),
        ({"full_lmk_bary_coords": np.full((1, 70, 3), np.nan)}, "lie on no face"),
        ({"full_lmk_bary_coords": np.ones((70, 2))}, "at least 68 landmarks"),
    ],
)
def test_bad_landmarks_are_refused(changes, message, flame_file, tmp_path):
    write_embedding(tmp_path / "landmarks.npy", **changes)
    with pytest.raises(ValueError, match=message):
        FlameHeadRig.from_flame(flame_file, landmarks=tmp_path / "landmarks.npy")
    (tmp_path / "landmarks.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"must be an .npy file"):
        FlameHeadRig.from_flame(flame_file, landmarks=tmp_path / "landmarks.npy")
    with pytest.raises(FileNotFoundError, match="none at"):
        FlameHeadRig.from_flame(flame_file, landmarks=tmp_path / "none.npy")
