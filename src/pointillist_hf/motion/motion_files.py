# SPDX-License-Identifier: Apache-2.0
"""Motion from other programs as rig parameters: the front door to the dialects of this folder.

`.csv` and `.json` hold ARKit's coefficients as Live Link Face, users of MediaPipe and LAM's
Audio2Expression write them; `.npz` holds FLAME parameters as VHAP and GaussianAvatars name them,
also as a folder with one file per frame; `.frame` files are tracks of Pixel3DMM.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..geometry.rotations import matrix_to_axis_angle, quat_to_matrix
from ..geometry.structures import RigParams
from ..rigs.head_rig import HeadRig
from .arkit import arkit_params, find_expression_map
from .arkit_names import ARKIT_NAMES
from .audio2expression import has_named_weights, read_named_weights
from .csv_table import read_table
from .csv_takes import read_csv_take
from .json_file import read_json
from .mediapipe_takes import has_categories, read_category_table, read_result_frames
from .pixel3dmm import DEFAULT_VERSION, SUFFIX, read_pixel3dmm
from .resampling import (
    MAX_GAP,
    check_rate,
    fill_gaps,
    resample_params,
    resample_take,
    time_take,
    warn_of_frames,
)
from .takes import Take, as_coefficients, check_take, mirror_take
from .vhap_params import read_params

logger = logging.getLogger(__name__)

TAKES = (".csv", ".json")
FLAME_FRAMES = ".npz"


def read_motion(
    path: str | Path,
    rig: HeadRig,
    *,
    betas: Tensor | None = None,
    expression_map: Tensor | None = None,
    flame_version: str = DEFAULT_VERSION,
    fps: float | None = None,
    take_fps: float | None = None,
    head_rotation: bool = True,
    mirror: bool = False,
    percent: bool | None = None,
    max_gap: float = MAX_GAP,
) -> RigParams:
    """The frames of a motion, for this rig.

    Args:
        path: .csv, .json, .npz, .frame, or a folder of .npz or .frame.
        rig: The rig that is to move.
        betas: Of the person, for ARKit's coefficients, whose lips then meet to the point. [S]
        expression_map: For ARKit's coefficients on a rig without their names, see `arkit_params`;
            by default learnt from our own head, which takes seconds and the rig's landmarks.
        flame_version: That a track of Pixel3DMM was made with, see `read_pixel3dmm`.
        fps: Rate of the clip, to which a take is brought by its own times; None keeps its frames.
        take_fps: Rate of the take, where the file does not say it; of a time code, the frames that
            make a second.
        head_rotation: Whether the head turns as the file says. Of ARKit's turns, see
            `takes.turn_quaternions`; they go to the neck.
        mirror: Whether left and right change places, as in a take of a mirror's picture.
        percent: Whether coefficients count from 0 to 100; None judges by their values.
        max_gap: Seconds without a face that are bridged.

    Returns:
        T frames. FLAME's parameters bring the shape coefficients of their person along.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or is no motion for this rig.
    """
    path = Path(path)
    check_rate("fps", fps)
    check_rate("take_fps", take_fps)
    if not max_gap >= 0:
        raise ValueError(f"`max_gap` must be seconds of at least 0, got {max_gap:g}.")
    if path.suffix.lower() not in TAKES or path.is_dir():
        params = _read_flame(path, rig, flame_version)
        return _as_asked(params, path, fps, take_fps, head_rotation, mirror)
    take = check_take(_read_take(path, take_fps, head_rotation), percent=percent)
    take = fill_gaps(time_take(mirror_take(take) if mirror else take, take_fps), max_gap)
    take = resample_take(take, fps)
    if expression_map is None:
        expression_map = find_expression_map(rig)
    params = arkit_params(as_coefficients(take), rig, betas=betas, expression_map=expression_map)
    if take.head is None:
        return params
    turns = matrix_to_axis_angle(quat_to_matrix(take.head))
    return replace(params, neck_pose=turns.to(params.neck_pose))


# ARKit's coefficients -----------------------------------------------------------------------------


def _read_take(path: Path, take_fps: float | None, head_rotation: bool) -> Take:
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a motion file, and there is none at {path}.")
    if path.suffix.lower() == ".json":
        record = read_json(path)
        if has_named_weights(record):
            return read_named_weights(record, path)
        return read_result_frames(record, path, head_rotation=head_rotation)
    table = read_table(path)
    if has_categories(table):
        return read_category_table(table)
    return read_csv_take(table, take_fps=take_fps, head_rotation=head_rotation)


# FLAME parameters ---------------------------------------------------------------------------------


def _read_flame(path: Path, rig: HeadRig, flame_version: str) -> RigParams:
    """The frames of a file or a folder."""
    if path.is_dir():
        return _read_folder(path, rig, flame_version)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a motion file, and there is none at {path}.")
    if path.suffix.lower() == SUFFIX:
        return read_pixel3dmm(path, rig, flame_version=flame_version)
    if path.suffix.lower() == FLAME_FRAMES:
        return _read_vhap(path, rig)
    raise ValueError(f"`path` must end in .csv, .json, .npz or .frame, got {path.name!r}.")


def _read_folder(path: Path, rig: HeadRig, flame_version: str) -> RigParams:
    """Frames of Pixel3DMM, or VHAP's of one frame each."""
    if any(path.glob(f"*{SUFFIX}")) or any(path.glob(f"checkpoint/*{SUFFIX}")):
        return read_pixel3dmm(path, rig, flame_version=flame_version)
    files = sorted(path.glob("*.npz")) or sorted(path.glob("flame_param/*.npz"))
    if files:
        frames = [vars(_read_vhap(file, rig)) for file in files]
        return RigParams(**{name: torch.cat([f[name] for f in frames]) for name in frames[0]})
    takes = sorted(file.name for file in path.iterdir() if file.suffix.lower() in TAKES)
    hint = f" It holds takes, of which one can be named: {', '.join(takes[:4])}." if takes else ""
    raise FileNotFoundError(
        f"`path` must be a motion file, or a folder of {SUFFIX} or {FLAME_FRAMES} files, and "
        f"{path} has none.{hint}"
    )


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


def _as_asked(
    params: RigParams,
    path: Path,
    fps: float | None,
    take_fps: float | None,
    head_rotation: bool,
    mirror: bool,
) -> RigParams:
    """FLAME's frames at the rate of the clip, and with a still head if none may turn."""
    if mirror:
        raise ValueError(
            f"`mirror` must be off for {path}: FLAME's expressions have no sides to change."
        )
    if not head_rotation:
        still = torch.zeros_like(params.neck_pose)
        params = replace(params, neck_pose=still, global_orient=still)
    if fps is None:
        return params
    if take_fps is None:
        warn_of_frames(path, len(params), fps)
        return params
    return resample_params(params, take_fps, fps)
