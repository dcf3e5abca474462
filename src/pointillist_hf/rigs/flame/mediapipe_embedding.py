# SPDX-License-Identifier: Apache-2.0
"""Where MediaPipe's landmarks lie on FLAME's faces: mediapipe_landmark_embedding.npz."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FACES, BARYCENTRIC, IDS = "lmk_face_idx", "lmk_b_coords", "landmark_indices"


@dataclass(frozen=True, eq=False)
class MediapipeEmbedding:
    """K landmarks on the faces of FLAME."""

    ids: np.ndarray  # [K] which of the 468
    faces: np.ndarray  # [K]
    barycentric: np.ndarray  # [K, 3]


def read_mediapipe_embedding(
    path: str | Path, *, num_faces: int, num_landmarks: int
) -> MediapipeEmbedding:
    """The embedding of a file that FLAME offers, 105 landmarks of brows, eyes, nose and mouth.

    Args:
        path: The .npz file.
        num_faces: Of the mesh.
        num_landmarks: Of the detector.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds no embedding on this mesh.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a file, and there is none at {path}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in (FACES, BARYCENTRIC, IDS)}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be an .npz file with {FACES}, {BARYCENTRIC} and {IDS}: {error}."
        ) from error
    faces, barycentric, ids = arrays[FACES], arrays[BARYCENTRIC], arrays[IDS]
    count = ids.size
    shapes_fit = faces.shape == ids.shape == (count,) and barycentric.shape == (count, 3)
    are_whole = faces.dtype.kind in "iu" and ids.dtype.kind in "iu"
    if not (shapes_fit and are_whole and count):
        raise ValueError(
            f"{path} must hold whole numbers {IDS} [K] and {FACES} [K], and {BARYCENTRIC} [K, 3]; "
            f"got arrays of shape {ids.shape}, {faces.shape} and {barycentric.shape}."
        )
    # Written so that NaN fails too.
    is_on_a_face = bool((np.abs(barycentric.sum(1) - 1) < 1e-3).all())
    is_on_mesh = faces.min() >= 0 and faces.max() < num_faces
    is_known = ids.min() >= 0 and ids.max() < num_landmarks
    if not (is_on_a_face and is_on_mesh and is_known):
        raise ValueError(f"{path} holds landmarks that lie on no face of the mesh.")
    return MediapipeEmbedding(
        ids.astype(np.int64), faces.astype(np.int64), barycentric.astype(np.float32)
    )
