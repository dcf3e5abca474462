# SPDX-License-Identifier: Apache-2.0
"""Motion from other programs as rig parameters.

`.npz` holds FLAME parameters as VHAP and GaussianAvatars name them; `.csv` holds ARKit's
coefficients with one row per frame, as Live Link Face and users of MediaPipe write them; `.frame`
files are tracks of Pixel3DMM.
"""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import torch
from torch import Tensor

from ..geometry.structures import RigParams
from ..rigs.head_rig import HeadRig
from .arkit import ARKIT_NAMES, arkit_params
from .pixel3dmm import DEFAULT_VERSION, SUFFIX, read_pixel3dmm
from .vhap_params import read_params

logger = logging.getLogger(__name__)


def read_motion(
    path: str | Path,
    rig: HeadRig,
    *,
    expression_map: Tensor | None = None,
    flame_version: str = DEFAULT_VERSION,
) -> RigParams:
    """The frames of a motion file, for this rig.

    Args:
        path: .npz, .csv, a .frame or a folder of those.
        rig: The rig that is to move.
        expression_map: For ARKit's coefficients on a rig without their names, see `arkit_params`.
        flame_version: That a track of Pixel3DMM was made with, see `read_pixel3dmm`.

    Returns:
        T frames. An .npz brings the shape coefficients of its person along, a .csv has none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or is no motion for this rig.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == SUFFIX:
        return read_pixel3dmm(path, rig, flame_version=flame_version)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a motion file, and there is none at {path}.")
    if path.suffix == ".npz":
        return _read_vhap(path, rig)
    if path.suffix == ".csv":
        return arkit_params(_read_arkit(path), rig, expression_map=expression_map)
    raise ValueError(f"`path` must end in .npz, .csv or .frame, got {path.name!r}.")


# FLAME parameters ---------------------------------------------------------------------------------


def _read_vhap(path: Path, rig: HeadRig) -> RigParams:
    if {*rig.expression_names} & {*ARKIT_NAMES}:
        raise ValueError(
            f"{path} holds FLAME's coefficients, which mean nothing to the named expressions of "
            f"{type(rig).__name__}. Use an avatar on FLAME, or ARKit's coefficients (.csv)."
        )
    rig_params, static_offset = read_params(
        path, num_betas=rig.num_betas, num_expressions=rig.num_expressions
    )
    if static_offset is not None and static_offset.any():
        logger.warning("%s has offsets of single vertices, which are left out.", path)
    return rig_params


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
