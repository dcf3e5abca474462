# SPDX-License-Identifier: Apache-2.0
"""An avatar on disk: canonical Gaussians, bindings and betas in one file, the rig in a folder.

`avatar.safetensors` holds the tensors, `avatar.json` which rig class reads `rig/`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry.structures import Gaussians
from ..rigs.array_checks import check_rig_arrays
from ..rigs.binding import check_bindings
from ..rigs.flame_rig import FlameHeadRig
from ..rigs.head_rig import FLOAT_ARRAYS, INDEX_ARRAYS, HeadRig
from ..rigs.procedural_rig import ProceduralHeadRig
from .atomic_file import name_partial
from .finite_splats import check_opacities, find_writable
from .folder_owner import own_folder
from .json_file import read_json_object, write_json_object
from .tensor_file import file_errors, read_tensor_names, read_tensors, write_tensors
from .write_targets import describe_full_disk

FORMAT_VERSION = 1
GAUSSIANS_FILE, CONFIG_FILE, RIG_FOLDER = "avatar.safetensors", "avatar.json", "rig"
RIG_FILE = "diffusion_pytorch_model.safetensors"  # as diffusers calls it
RIG_CLASSES: dict[str, type[HeadRig]] = {
    "ProceduralHeadRig": ProceduralHeadRig,
    "FlameHeadRig": FlameHeadRig,
}
GAUSSIAN_FIELDS = ("means", "quats", "scales", "opacities", "colors")
# Numbers of each splat; None: one, without a dimension of its own.
WIDTHS = {"means": 3, "quats": 4, "scales": 3, "opacities": None, "colors": 3, "bindings": None}
# Far beyond what a colour that was fitted reaches, and far below bytes.
MAX_COLOR = 10.0
# What diffusers, safetensors, json and torch raise of a folder that is no whole rig.
RIG_DAMAGE = (ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError)


class AvatarParts(NamedTuple):
    """What an avatar is made of."""

    gaussians: Gaussians  # [N] canonical
    bindings: Tensor  # [N]
    rig: HeadRig
    betas: Tensor  # [S]


def check_parts(parts: AvatarParts) -> None:
    """Refuses parts that do not fit together or are beyond their ranges.

    Splats that are not finite pass: drawing and files leave them out.
    """
    gaussians, bindings, rig, betas = parts
    if gaussians.means.ndim != 2 or bindings.shape != (len(gaussians),):
        raise ValueError(
            "`gaussians` and `bindings` must hold the same N points, got "
            f"{tuple(gaussians.means.shape[:-1])} and {tuple(bindings.shape)}."
        )
    if bindings.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"`bindings` must be faces of the rig, whole numbers, got {bindings.dtype}."
        )
    check_bindings(bindings, rig.num_faces)
    if betas.shape != (rig.num_betas,):
        raise ValueError(f"`betas` must have shape ({rig.num_betas},), got {tuple(betas.shape)}.")
    if not betas.is_floating_point() or not betas.isfinite().all():
        raise ValueError(f"`betas` must be finite numbers, got {betas.dtype} {betas.tolist()[:4]}.")
    _check_ranges(gaussians)


def _check_ranges(gaussians: Gaussians) -> None:
    for name in GAUSSIAN_FIELDS:
        dtype = getattr(gaussians, name).dtype
        if not dtype.is_floating_point:
            raise ValueError(f"`{name}` must be floating numbers, got {dtype}.")
    check_opacities(gaussians.opacities)
    if (gaussians.scales < 0).any():
        found = float(gaussians.scales.nan_to_num().min())
        raise ValueError(
            f"`scales` must be positive, in metres, got {found:g}; of logarithms take `exp` first."
        )
    reach = gaussians.colors.nan_to_num(0, 0, 0).abs().max() if len(gaussians) else 0
    if reach > MAX_COLOR:
        raise ValueError(
            f"`colors` must be sRGB in [0, 1], got {float(reach):g}; divide bytes by 255."
        )


def save_avatar(parts: AvatarParts, folder: str | Path) -> None:
    """Writes the folder. Splats that are not finite are left out, and counted in the log.

    Raises:
        BlockingIOError: Another process is writing the same folder.
        OSError: It cannot be written.
    """
    is_written = find_writable(parts.gaussians)
    tensors = {name: getattr(parts.gaussians, name)[is_written] for name in GAUSSIAN_FIELDS}
    tensors |= {"bindings": parts.bindings[is_written], "betas": parts.betas}
    config = {"format_version": FORMAT_VERSION, "rig_class": type(parts.rig).__name__}
    with own_folder(folder) as place:
        unfinished = name_partial(place / RIG_FOLDER)
        try:
            with file_errors(place / RIG_FOLDER):
                parts.rig.save_pretrained(unfinished / RIG_FOLDER)
            write_tensors(tensors, unfinished / GAUSSIANS_FILE)
            write_json_object(config, unfinished / CONFIG_FILE)
            _move_in_place(unfinished, place)
        except OSError as error:
            raise describe_full_disk(error, folder) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _move_in_place(unfinished: Path, place: Path) -> None:
    """Replaces an avatar by another; a folder without a config, in between, is none."""
    (place / CONFIG_FILE).unlink(missing_ok=True)
    (place / RIG_FOLDER).mkdir(exist_ok=True)
    for path in sorted((unfinished / RIG_FOLDER).iterdir()):
        os.replace(path, place / RIG_FOLDER / path.name)
    for name in (GAUSSIANS_FILE, CONFIG_FILE):
        os.replace(unfinished / name, place / name)


def load_avatar(folder: str | Path) -> AvatarParts:
    """Reads what `save_avatar` wrote.

    Raises:
        FileNotFoundError: The folder holds no avatar.
        ValueError: It is damaged, or was written by another version or for an unknown rig.
    """
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"`folder` must hold {CONFIG_FILE}, and {folder} does not.")
    config = read_json_object(folder / CONFIG_FILE)
    if config.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"`format_version` must be {FORMAT_VERSION}, got {config.get('format_version')}: "
            "the avatar was written by another version of this package."
        )
    name = config.get("rig_class")
    if not isinstance(name, str) or name not in RIG_CLASSES:
        raise ValueError(f"`rig_class` must be one of {', '.join(RIG_CLASSES)}, got {name}.")
    tensors = read_tensors(folder / GAUSSIANS_FILE)
    _check_tensors(tensors, folder / GAUSSIANS_FILE)
    rig = _load_rig(RIG_CLASSES[name], folder / RIG_FOLDER)
    gaussians = Gaussians(**{name: tensors[name] for name in GAUSSIAN_FIELDS})
    return AvatarParts(gaussians, tensors["bindings"], rig, tensors["betas"])


def _check_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Refuses a file that lacks a tensor, or in which one has another shape or is not finite."""
    missing = [name for name in (*WIDTHS, "betas") if name not in tensors]
    if missing:
        raise ValueError(f"`{missing[0]}` must be in {path}, and is not; save the avatar again.")
    count = len(tensors["means"]) if tensors["means"].ndim else 0
    for name, width in WIDTHS.items():
        expected = (count,) if width is None else (count, width)
        if tuple(tensors[name].shape) != expected:
            raise ValueError(
                f"`{name}` of {path} must have shape {expected}, got "
                f"{tuple(tensors[name].shape)}; save the avatar again."
            )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(
                f"`{name}` of {path} must be finite, and holds nan or inf; make the avatar again."
            )


def _load_rig(rig_class: type[HeadRig], folder: Path) -> HeadRig:
    """The rig of a folder.

    Raises:
        FileNotFoundError: The folder holds no rig, or the rig's own file is gone.
        ValueError: The rig is damaged.
    """
    read_json_object(folder / rig_class.config_name)
    if rig_class is not FlameHeadRig:  # which is saved by reference
        # diffusers takes the arrays of a new rig in place of missing ones.
        missing = {*FLOAT_ARRAYS, *INDEX_ARRAYS} - read_tensor_names(folder / RIG_FILE)
        if missing:
            raise ValueError(
                f"`{min(missing)}` must be in {folder / RIG_FILE}, and is not; save the avatar "
                "again."
            )
    try:
        rig = rig_class.from_pretrained(folder)
        check_rig_arrays(rig)
    except RIG_DAMAGE as error:
        raise ValueError(
            f"`folder` must hold a whole rig, and {folder} does not ({error}); save the avatar "
            "again."
        ) from error
    return rig
