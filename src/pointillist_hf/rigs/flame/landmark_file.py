# SPDX-License-Identifier: Apache-2.0
"""Where FLAME's landmarks lie on its faces: landmark_embedding_with_eyes.npy."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

import numpy as np

from .array_decoding import decode_array, unwrap_dictionary
from .restricted_pickle import load_records

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
    try:
        faces, barycentric = (decode_array(embedding[name]) for name in names)
    except ValueError as error:
        raise ValueError(f"{path} is refused: {error}.") from error
    count = faces.size
    if count < NUM_LANDMARKS or barycentric.size != 3 * count or faces.dtype.kind not in "iu":
        raise ValueError(
            f"{path} must hold at least {NUM_LANDMARKS} landmarks with a face and three shares "
            f"each, got arrays of shape {faces.shape} and {barycentric.shape}."
        )
    faces = faces.reshape(-1)[:NUM_LANDMARKS].astype(np.int64)
    barycentric = barycentric.reshape(-1, 3)[:NUM_LANDMARKS].astype(np.float32)
    # Written so that NaN fails too.
    is_on_a_face = bool((np.abs(barycentric.sum(1) - 1) < 1e-3).all())
    if not is_on_a_face or faces.min() < 0 or faces.max() >= num_faces:
        raise ValueError(f"{path} holds landmarks that lie on no face of the mesh.")
    return faces, barycentric


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
    except (ValueError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"{path} must be an .npy file: {error}.") from error
    try:
        # A zero-dimensional array with a dictionary in it.
        return unwrap_dictionary(load_records(stream.read(), path))
    except ValueError as error:
        raise ValueError(f"{path} is refused: {error}.") from error
