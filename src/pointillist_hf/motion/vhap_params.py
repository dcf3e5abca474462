# SPDX-License-Identifier: Apache-2.0
"""Rig parameters as VHAP and GaussianAvatars store them: .npz with FLAME's names.

`translation`, `rotation`, `neck_pose`, `jaw_pose` [T, 3], `eyes_pose` [T, 6] (left, right), `expr`
[T, E], `shape` [S], and `static_offset` [1, V, 3], what the shape coefficients cannot say of the
person. One frame may lack the dimension T.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..geometry.structures import RigParams
from ..rigs.archive import read_archive

MAX_VALUE = 1e4  # of any coefficient, radian or metre
# Names in the files -> ours.
POSES = {
    "rotation": "global_orient",
    "neck_pose": "neck_pose",
    "jaw_pose": "jaw_pose",
    "translation": "transl",
}
ARRAYS = ("expr", "shape", "eyes_pose", "static_offset", *POSES)
TEETH_VERTICES = 120  # that GaussianAvatars adds to FLAME's 5,023


def read_params(
    path: str | Path, *, num_betas: int | None = None, num_expressions: int | None = None
) -> tuple[RigParams, Tensor | None]:
    """The frames of a file, and the static offset if there is one.

    Args:
        path: The .npz.
        num_betas: S of the rig; coefficients that the file lacks are zero. The default is as many
            as there are.
        num_expressions: E of the rig; likewise.

    Returns:
        T frames, and metres [V, 3].

    Raises:
        ValueError: The file is damaged, lacks an array, or holds other than finite numbers.
    """
    arrays = read_archive(Path(path), ARRAYS)
    missing = [name for name in ("expr", *POSES) if name not in arrays]
    if missing:
        raise ValueError(
            f"{path} must hold FLAME parameters in VHAP's names; it lacks {', '.join(missing)}."
        )
    frames = len(np.atleast_2d(arrays["expr"]))
    if frames == 0:
        raise ValueError(f"{path} must hold at least one frame, got none.")

    def rows(name: str, width: int | None) -> Tensor:
        default = np.zeros(width or 0)
        return _rows(arrays.get(name, default), frames, width, f"`{name}` of {path}")

    eyes = rows("eyes_pose", 6)
    params = RigParams(
        betas=rows("shape", num_betas),
        expression=rows("expr", num_expressions),
        leye_pose=eyes[:, :3],
        reye_pose=eyes[:, 3:],
        **{ours: rows(theirs, 3) for theirs, ours in POSES.items()},
    )
    return params, _static_offset(arrays.get("static_offset"), path)


def write_params(
    path: str | Path,
    rig_params: RigParams,
    static_offset: Tensor | None = None,
    *,
    with_dynamic_offset: bool = False,
) -> None:
    """Writes T frames of one person, with the first frame's shape.

    Args:
        path: The .npz.
        rig_params: T frames.
        static_offset: Metres. [V, 3]
        with_dynamic_offset: Adds offsets of zero for every frame, which GaussianAvatars asks for.
    """
    arrays = {theirs: getattr(rig_params, ours) for theirs, ours in POSES.items()}
    arrays["eyes_pose"] = torch.cat([rig_params.leye_pose, rig_params.reye_pose], dim=-1)
    arrays["expr"], arrays["shape"] = rig_params.expression, rig_params.betas[0]
    if static_offset is not None:
        arrays["static_offset"] = static_offset[None]
    if with_dynamic_offset and static_offset is not None:
        arrays["dynamic_offset"] = static_offset.new_zeros(len(rig_params), *static_offset.shape)
    floats = {name: value.detach().cpu().float().numpy() for name, value in arrays.items()}
    with Path(path).open("wb") as file:  # given a path, numpy would add a suffix to it
        np.savez_compressed(file, **floats)


def match_static_offset(offset: Tensor | None, num_vertices: int, source: str | Path) -> Tensor:
    """A static offset for the vertices of a rig: none is zero, and added teeth have none.

    Raises:
        ValueError: The offset belongs to another mesh.
    """
    if offset is None or not len(offset):
        return torch.zeros(num_vertices, 3)
    missing = num_vertices - len(offset)
    if missing == TEETH_VERTICES:
        return torch.cat([offset, offset.new_zeros(missing, 3)])
    if missing == -TEETH_VERTICES:
        return offset[:num_vertices]
    if missing:
        raise ValueError(
            f"`static_offset` of {source} must have {num_vertices} vertices as the rig has, got "
            f"{len(offset)}. Is it for another rig?"
        )
    return offset


def _rows(array: np.ndarray, frames: int, width: int | None, what: str) -> Tensor:
    """One row per frame; trackers that know fewer coefficients leave out the last. [T, width]"""
    array = np.atleast_2d(array)
    if width is None:
        width = array.shape[-1]
    is_pose = width in (3, 6)
    fits = array.shape[-1] == width if is_pose else array.shape[-1] <= width
    if array.ndim != 2 or len(array) not in (1, frames) or not fits:
        rule = f"{width}" if is_pose else f"at most {width}"
        raise ValueError(
            f"{what} must have {frames} rows of {rule} values, got shape {array.shape}. Is this "
            "the motion of another rig?"
        )
    _check_numbers(array, what)
    rows = torch.zeros(frames, width)
    rows[:, : array.shape[-1]] = torch.from_numpy(array.astype(np.float32))
    return rows


def _static_offset(array: np.ndarray | None, path: str | Path) -> Tensor | None:
    if array is None:
        return None
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(
            f"`static_offset` of {path} must have shape (1, V, 3) or (V, 3), got {array.shape}."
        )
    _check_numbers(array, f"`static_offset` of {path}")
    return torch.from_numpy(array.astype(np.float32))


def _check_numbers(array: np.ndarray, what: str) -> None:
    if array.dtype.kind not in "fiu" or np.isnan(array).any() or (np.abs(array) > MAX_VALUE).any():
        raise ValueError(f"{what} must hold finite numbers of at most {MAX_VALUE:g}.")
