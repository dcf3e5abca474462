# SPDX-License-Identifier: Apache-2.0
"""Tracks of Pixel3DMM (the paper's tracker) as rig parameters: checkpoint/00000.frame and so on.

A .frame is what `torch.save` makes of a dictionary of numpy arrays: a zip with a pickle in it. It
goes through the restricted reader, so it can name arrays and nothing else. Pixel3DMM turns the head
about the origin and stores rotations as two rows of their matrices; FLAME turns about the root
joint and takes axis-angle.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from ..geometry.structures import RigParams
from ..rigs.flame.array_decoding import decode_array, unwrap_dictionary
from ..rigs.flame.restricted_pickle import load_records
from ..rigs.flame_rig import FlameHeadRig
from ..rigs.head_rig import HeadRig

logger = logging.getLogger(__name__)

SUFFIX = ".frame"
DEFAULT_VERSION = "2020"  # of FLAME, which the files do not say
MAX_FRAME_SIZE = 2**26  # bytes; a frame has some 50,000
DAMAGE = (
    zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError,
)  # fmt: skip
WIDTHS = {"shape": 300, "exp": 100, "R": 6, "t": 3, "neck": 6, "jaw": 6, "eyes": 12}


def read_pixel3dmm(
    path: str | Path, rig: HeadRig, *, flame_version: str = DEFAULT_VERSION
) -> RigParams:
    """The frames of a track.

    Args:
        path: A .frame, or a folder of them: `checkpoint`, or the one that holds it.
        rig: FLAME, of the version that was tracked with.
        flame_version: Which that was; "2020" unless Pixel3DMM ran with `use_flame2023`, which
            means "2023_no_jaw".

    Raises:
        FileNotFoundError: There is no frame.
        ValueError: The rig is not FLAME of that version, or a frame is damaged.
    """
    _check_rig(rig, path, flame_version)
    frames = [_read_frame(file) for file in _find_frames(Path(path))]
    columns = {name: torch.cat([frame[name] for frame in frames]) for name in WIDTHS}
    eyes = columns["eyes"].unflatten(1, (2, 6))
    turned = RigParams(
        betas=columns["shape"][:1, : rig.num_betas].expand(len(frames), -1),
        expression=columns["exp"][:, : rig.num_expressions],
        global_orient=_axis_angle(columns["R"]),
        neck_pose=_axis_angle(columns["neck"]),
        jaw_pose=_axis_angle(columns["jaw"]),
        leye_pose=_axis_angle(eyes[:, 0]),
        reye_pose=_axis_angle(eyes[:, 1]),
        transl=columns["t"],
    )
    return _turn_about_root(turned, rig)


def rotations_from_rows(rows: Tensor) -> Tensor:
    """Rotation matrices of their first two rows, made orthonormal one after the other.

    Args:
        rows: [..., 6]

    Returns:
        [..., 3, 3]
    """
    first, second = normalize(rows[..., :3], dim=-1), rows[..., 3:]
    along = (first * second).sum(-1, keepdim=True)
    second = normalize(second - along * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def _axis_angle(rows: Tensor) -> Tensor:
    return matrix_to_axis_angle(rotations_from_rows(rows))


def _turn_about_root(params: RigParams, rig: HeadRig) -> RigParams:
    """The same motion with the turn about the root joint J: R v + t = R (v - J) + J + t'."""
    shaped = rig.canonical_vertices(params.betas)
    shaped = shaped + torch.einsum("vce,te->tvc", rig.exprdirs, params.expression)
    root = torch.einsum("v,tvc->tc", rig.J_regressor[0], shaped)
    turned = torch.einsum("tij,tj->ti", axis_angle_to_matrix(params.global_orient), root)
    return RigParams(**{**vars(params), "transl": params.transl + turned - root})


def _check_rig(rig: HeadRig, path: str | Path, flame_version: str) -> None:
    if not isinstance(rig, FlameHeadRig):
        raise ValueError(
            f"{path} holds FLAME's coefficients, which mean nothing to {type(rig).__name__}. Use "
            "an avatar on FLAME, or ARKit's coefficients (.csv)."
        )
    if rig.config.version != flame_version:
        raise ValueError(
            f"{path} was tracked with FLAME {flame_version}, and the rig is FLAME "
            f"{rig.config.version}: their coefficients mean different shapes. Use that version, or "
            "pass `flame_version` if the track was made with another."
        )


def _find_frames(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(path.glob(f"*{SUFFIX}")) or sorted(path.glob(f"checkpoint/*{SUFFIX}"))
    if not found:
        raise FileNotFoundError(f"`path` must be a {SUFFIX} or hold some, and {path} does not.")
    return found


def _read_frame(path: Path) -> dict[str, Tensor]:
    """The arrays of a frame, one row each."""
    frame = unwrap_dictionary(load_records(_read_pickle(path), path))
    flame = frame.get("flame")
    if not isinstance(flame, dict) or {*WIDTHS} - {*flame}:
        missing = {*WIDTHS} - ({*flame} if isinstance(flame, dict) else set())
        raise ValueError(f"{path} is no frame of Pixel3DMM; it lacks {', '.join(sorted(missing))}.")
    try:
        arrays = {name: decode_array(flame[name]) for name in (*WIDTHS, "eyelids") if name in flame}
    except ValueError as error:
        raise ValueError(f"{path} is refused: {error}.") from error
    if "eyelids" in arrays and np.any(arrays.pop("eyelids")):
        logger.warning("%s moves eyelids by fields that FLAME lacks; they are left out.", path)
    for name, width in WIDTHS.items():
        array = arrays[name]
        if array.size != width or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(
                f"`{name}` of {path} must be {width} finite numbers, got shape {array.shape}."
            )
    return {name: torch.from_numpy(arrays[name].reshape(1, -1).astype("f4")) for name in WIDTHS}


def _read_pickle(path: Path) -> bytes:
    """The pickle in the zip that `torch.save` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) == 1 and archive.getinfo(names[0]).file_size <= MAX_FRAME_SIZE:
                return archive.read(names[0])
    except DAMAGE as error:
        raise ValueError(f"{path} cannot be read as a frame of Pixel3DMM: {error}.") from error
    raise ValueError(f"{path} is no file of `torch.save`, as frames of Pixel3DMM are.")
