# SPDX-License-Identifier: Apache-2.0
"""Where FLAME's landmarks lie on its faces: landmark_embedding_with_eyes.npy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from .restricted_pickle import decode_value, load_records

NUM_LANDMARKS = 68


def read_landmarks(path: str | Path, *, num_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """The 68 iBUG landmarks of an embedding; those of the eyes are left out.

    Args:
        path: An .npy file with a pickled dictionary in it.
        num_faces: Of the mesh.

    Returns:
        Faces [68] and barycentric coordinates [68, 3].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, hostile or holds no full embedding.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`landmarks` must be a file, and there is none at {path}.")
    embedding = _read_dictionary(path)
    names = ("full_lmk_faces_idx", "full_lmk_bary_coords")
    missing = [name for name in names if name not in embedding]
    if missing:
        raise ValueError(
            f"{path} must hold {' and '.join(names)}, as landmark_embedding_with_eyes.npy does; "
            f"it lacks {', '.join(missing)}."
        )
    faces = np.asarray(embedding[names[0]]).reshape(-1)[:NUM_LANDMARKS]
    barycentric = np.asarray(embedding[names[1]]).reshape(-1, 3)[:NUM_LANDMARKS]
    if len(faces) != NUM_LANDMARKS or len(barycentric) != NUM_LANDMARKS:
        raise ValueError(f"{path} must hold at least {NUM_LANDMARKS} landmarks, got {len(faces)}.")
    if faces.min() < 0 or faces.max() >= num_faces or np.abs(barycentric.sum(1) - 1).max() > 1e-3:
        raise ValueError(f"{path} holds landmarks that lie on no face of the mesh.")
    return faces.astype(np.int64), barycentric.astype(np.float32)


def _read_dictionary(path: Path) -> dict[str, object]:
    stream = io.BytesIO(path.read_bytes())
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        read_header(stream)
    except ValueError as error:
        raise ValueError(f"{path} must be an .npy file: {error}.") from error
    try:
        # A zero-dimensional array with a dictionary in it.
        content = decode_value(load_records(stream.read(), path))
    except ValueError as error:
        raise ValueError(f"{path} is refused: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dictionary.")
    return content
