# SPDX-License-Identifier: Apache-2.0
"""Motion from other programs as rig parameters.

`.npz` holds FLAME parameters as VHAP and GaussianAvatars name them; `.csv` holds ARKit's
coefficients with one row per frame, as Live Link Face and users of MediaPipe write them.
"""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..geometry.structures import RigParams
from .archive import read_archive
from .arkit import ARKIT_NAMES, arkit_params
from .head_rig import HeadRig

logger = logging.getLogger(__name__)

MAX_VALUE = 1e4  # of any coefficient, radian or metre
# Names in VHAP's files -> ours.
POSES = {
    "rotation": "global_orient",
    "neck_pose": "neck_pose",
    "jaw_pose": "jaw_pose",
    "translation": "transl",
}


def read_motion(
    path: str | Path, rig: HeadRig, *, expression_map: Tensor | None = None
) -> RigParams:
    """The frames of a motion file, for this rig.

    Args:
        path: .npz or .csv.
        rig: The rig that is to move.
        expression_map: For ARKit's coefficients on a rig without their names, see `arkit_params`.

    Returns:
        T frames. An .npz brings the shape coefficients of its person along, a .csv has none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or is no motion for this rig.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a motion file, and there is none at {path}.")
    if path.suffix == ".npz":
        return _read_vhap(path, rig)
    if path.suffix == ".csv":
        return arkit_params(_read_arkit(path), rig, expression_map=expression_map)
    raise ValueError(f"`path` must end in .npz or .csv, got {path.name!r}.")


# FLAME parameters ---------------------------------------------------------------------------------


def _read_vhap(path: Path, rig: HeadRig) -> RigParams:
    if {*rig.expression_names} & {*ARKIT_NAMES}:
        raise ValueError(
            f"{path} holds FLAME's coefficients, which mean nothing to the named expressions of "
            f"{type(rig).__name__}. Use an avatar on FLAME, or ARKit's coefficients (.csv)."
        )
    arrays = read_archive(path, ("expr", "shape", "eyes_pose", "static_offset", *POSES))
    missing = [name for name in ("expr", *POSES) if name not in arrays]
    if missing:
        raise ValueError(
            f"{path} must hold FLAME parameters in VHAP's names; it lacks {', '.join(missing)}."
        )
    frames = len(np.atleast_2d(arrays["expr"]))
    if frames == 0:
        raise ValueError(f"{path} must hold at least one frame, got none.")
    if "static_offset" in arrays and arrays["static_offset"].any():
        logger.warning("%s has offsets of single vertices, which are left out.", path)
    eyes = _rows(arrays.get("eyes_pose", np.zeros(6)), frames, 6, f"`eyes_pose` of {path}")
    return RigParams(
        betas=_rows(arrays.get("shape", np.zeros(0)), frames, rig.num_betas, f"`shape` of {path}"),
        expression=_rows(arrays["expr"], frames, rig.num_expressions, f"`expr` of {path}"),
        leye_pose=eyes[:, :3],
        reye_pose=eyes[:, 3:],
        **{
            our: _rows(arrays[name], frames, 3, f"`{name}` of {path}")
            for name, our in POSES.items()
        },
    )


def _rows(array: np.ndarray, frames: int, width: int, what: str) -> Tensor:
    """One row per frame; trackers that know fewer coefficients leave out the last. [T, width]"""
    array = np.atleast_2d(array)
    is_pose = width in (3, 6)
    fits = array.shape[-1] == width if is_pose else array.shape[-1] <= width
    if array.ndim != 2 or len(array) not in (1, frames) or not fits:
        rule = f"{width}" if is_pose else f"at most {width}"
        raise ValueError(
            f"{what} must have {frames} rows of {rule} values, got shape {array.shape}. Is this "
            "the motion of another rig?"
        )
    if array.dtype.kind not in "fiu" or (np.abs(array) > MAX_VALUE).any() or np.isnan(array).any():
        raise ValueError(f"{what} must hold finite numbers of at most {MAX_VALUE:g}.")
    rows = torch.zeros(frames, width)
    rows[:, : array.shape[-1]] = torch.from_numpy(array.astype(np.float32))
    return rows


# ARKit's coefficients -----------------------------------------------------------------------------


def _read_arkit(path: Path) -> dict[str, Tensor]:
    """Columns with ARKit's names; Live Link Face begins them with a capital."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as .csv: {error}.") from error
    header = list(rows[0]) if rows else []
    columns = {
        name: name[0].lower() + name[1:]
        for name in header
        if name and name[0].lower() + name[1:] in ARKIT_NAMES
    }
    if not columns:
        raise ValueError(
            f"{path} must have a header with ARKit's names (eyeBlinkLeft, jawOpen, ...) and at "
            f"least one row, got {', '.join(map(str, header[:4])) or 'an empty file'}."
        )
    _warn_of_head(path, header)
    return {ours: _column(rows, name, path) for name, ours in columns.items()}


def _column(rows: list[dict[str, str]], name: str, path: Path) -> Tensor:
    values = []
    for number, row in enumerate(rows, start=2):
        try:
            values.append(float(row[name]))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`{name}` in line {number} of {path} must be a number, got {row[name]!r}."
            ) from error
    return torch.tensor(values)


def _warn_of_head(path: Path, header: list[str]) -> None:
    turns = [name for name in header if name in ("HeadYaw", "HeadPitch", "HeadRoll")]
    if turns:
        logger.warning(
            "%s also holds turns of the head (%s). Programs disagree on their signs, so they are "
            "left out; set `neck_pose` yourself.",
            path,
            ", ".join(turns),
        )
