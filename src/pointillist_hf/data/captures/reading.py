# SPDX-License-Identifier: Apache-2.0
"""Captures on disk, in the layout of VHAP and GaussianAvatars.

    <folder>/transforms_{train,val,test}.json   or transforms.json alone; frames with their cameras
    <folder>/images/00003_08.png                time step and camera, RGB on white or RGBA
    <folder>/fg_masks/00003_08.png              grey, 255 on the person; may be absent
    <folder>/flame_param/00003.npz              tracked parameters, see `rigs.vhap_params`

Paths stand in the JSON and are relative to the folder, so a UNION folder may point into its
neighbours. Camera matrices there are camera-to-world in OpenGL's axes; they become OpenCV's
world-to-camera here and nowhere else; `cy` counts from the bottom of the picture. An entry "rig" in
the JSON is ours: it names the rig of the parameters, which is FLAME where nothing is said.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...exporters.path_names import check_path_name
from ...geometry.structures import Cameras, Capture, RigParams
from ...motion.vhap_params import read_params
from ...portraits.picture_reading import read_picture_size
from .picture_files import PictureFiles

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
# OpenGL's camera looks along -z with y up, OpenCV's along +z with y down.
OPENGL_TO_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
SHAPE_TOLERANCE = 0.05  # by how much shape coefficients of one person may differ, unwarned

MAX_NUMBER = 1e9  # of anything in the JSON

Frame = dict[str, object]


def read_capture(folder: str | Path) -> Capture:
    """A capture; its pictures are read when they are asked for.

    Raises:
        FileNotFoundError: The folder has no transforms, or a file that they name is missing.
        ValueError: A file is damaged or holds what cannot be; the message names the file.
    """
    folder = Path(folder)
    frames = [(split, source, f) for split, source in _find_splits(folder) for f in _frames(source)]
    if not frames:
        raise ValueError(f"{folder} must hold at least one picture, and its transforms list none.")
    sources = [source for _, source, _ in frames]
    listed = [frame for _, _, frame in frames]
    cameras = _read_cameras(listed, sources)
    images = [_find_picture(folder, f, s) for f, s in zip(listed, sources, strict=True)]
    _check_sizes(images, cameras)
    masks = _find_masks(folder, listed)
    _check_sizes([path for path in masks if path is not None], cameras)
    timesteps, rig_params, static_offset = _read_tracking(folder, listed, sources)
    return Capture(
        name=folder.resolve().name,
        images=PictureFiles(images, cameras, is_mask=False),
        masks=PictureFiles(masks, cameras, is_mask=True),
        cameras=cameras,
        timesteps=timesteps,
        camera_ids=tuple(str(f.get("camera_id", f.get("camera_index", 0))) for f in listed),
        splits=tuple(split for split, _, _ in frames),
        rig_params=rig_params,
        static_offset=static_offset,
        rig=_read_json(sources[0]).get("rig"),
    )


def capture_digest(capture: Capture) -> str:
    """What tells a capture from another: its cameras, times and parameters, not its pixels."""
    digest = hashlib.sha256(repr((capture.splits, capture.camera_ids)).encode())
    cameras, params = capture.cameras, capture.rig_params
    for tensor in (cameras.viewmats, cameras.Ks, capture.timesteps, *vars(params).values()):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def find_captures(folders: Sequence[str | Path]) -> list[Path]:
    """Captures; a folder may be one, or hold some.

    Raises:
        FileNotFoundError: A folder is neither.
    """
    found = []
    for folder in map(Path, folders):
        inside = sorted(path.parent for path in folder.glob("*/transforms*.json"))
        inside = [path for path in dict.fromkeys(inside) if not path.name.endswith(".partial")]
        if list(folder.glob("transforms*.json")) or not inside:
            inside = [folder]
        if not list(inside[0].glob("transforms*.json")):
            raise FileNotFoundError(
                f"`captures` must be captures or folders of captures, and {folder} holds none."
            )
        found += inside
    for folder in found:
        check_path_name("captures", folder)
    return found


def _find_splits(folder: Path) -> list[tuple[str, Path]]:
    """Splits and their files; transforms.json alone is for training."""
    found = [(split, folder / f"transforms_{split}.json") for split in SPLITS]
    found = [(split, path) for split, path in found if path.is_file()]
    if any(split == "train" for split, _ in found):
        return found
    if (folder / "transforms.json").is_file():
        return [("train", folder / "transforms.json")]
    raise FileNotFoundError(
        f"`folder` must hold a capture in the layout of VHAP and GaussianAvatars, and there is "
        f"neither transforms_train.json nor transforms.json in {folder}."
    )


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise ValueError(f'{path} must be a JSON object with a list "frames".')
    return content


def _frames(path: Path) -> list[Frame]:
    """Frames of a file; what they do not say themselves is taken from the top of the file."""
    content = _read_json(path)
    shared = {key: value for key, value in content.items() if key != "frames"}
    for number, frame in enumerate(content["frames"]):
        if not isinstance(frame, dict) or "file_path" not in frame:
            raise ValueError(f'Frame {number} of {path} must be an object with a "file_path".')
    return [{**shared, **frame} for frame in content["frames"]]


def _number(frame: Mapping[str, object], key: str, source: Path) -> float:
    value = frame.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < MAX_NUMBER:  # NaN is not less either
        raise ValueError(
            f"`{key}` of {frame['file_path']} in {source} must be a finite number, got {value!r}."
        )
    return float(value)


# cameras ------------------------------------------------------------------------------------------


def _read_cameras(frames: list[Frame], sources: list[Path]) -> Cameras:
    pairs = list(zip(frames, sources, strict=True))
    width, height = (int(_number(frames[0], key, sources[0])) for key in ("w", "h"))
    for frame, source in pairs:
        if (_number(frame, "w", source), _number(frame, "h", source)) != (width, height):
            raise ValueError(
                f"Pictures of a capture must share one size, and {frame['file_path']} in {source} "
                f"is {frame['w']} x {frame['h']} where others are {width} x {height}."
            )
    return Cameras(
        viewmats=torch.stack([_viewmat(*pair) for pair in pairs]),
        Ks=torch.stack([_intrinsics(*pair) for pair in pairs]),
        width=width,
        height=height,
    )


def _viewmat(frame: Frame, source: Path) -> Tensor:
    where = f"`transform_matrix` of {frame['file_path']} in {source}"
    try:
        matrix = torch.tensor(frame.get("transform_matrix"), dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{where} must be 4 rows of 4 numbers.") from error
    if matrix.shape != (4, 4) or not torch.isfinite(matrix).all():
        raise ValueError(f"{where} must be 4 rows of 4 finite numbers.")
    rotation = matrix[:3, :3]
    is_rotation = torch.allclose(rotation @ rotation.T, torch.eye(3).double(), atol=1e-3)
    if not is_rotation or torch.linalg.det(rotation) < 0:
        raise ValueError(
            f"{where} must be a rotation and a place, and its axes are not unit, or mirrored."
        )
    return torch.linalg.inv(matrix @ OPENGL_TO_OPENCV).float()


def _intrinsics(frame: Frame, source: Path) -> Tensor:
    """From focal lengths in pixels, or from the opening angle; the middle is the default centre."""
    width, height = _number(frame, "w", source), _number(frame, "h", source)
    if "fl_x" in frame:
        fl_x = _number(frame, "fl_x", source)
    else:
        half = math.tan(_number(frame, "camera_angle_x", source) / 2)
        fl_x = width / 2 / half if half > 0 else 0.0
    fl_y = _number(frame, "fl_y", source) if "fl_y" in frame else fl_x
    cx = _number(frame, "cx", source) if "cx" in frame else width / 2
    # VHAP turned the axis of y along with the camera's axes, so it counts from the bottom.
    cy = height - _number(frame, "cy", source) if "cy" in frame else height / 2
    if fl_x <= 0 or fl_y <= 0:
        raise ValueError(f"Focal lengths of {frame['file_path']} in {source} must be positive.")
    return torch.tensor([[fl_x, 0.0, cx], [0.0, fl_y, cy], [0.0, 0.0, 1.0]])


# pictures -----------------------------------------------------------------------------------------


def _find_picture(folder: Path, frame: Frame, source: Path) -> Path:
    path = folder / str(frame["file_path"])
    for candidate in (path, path.with_name(f"{path.name}.png")):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{source} names {path}, and there is no such file.")


def _find_masks(folder: Path, frames: list[Frame]) -> list[Path | None]:
    """Masks by the JSON; without any, everything counts as the person."""
    paths = [folder / str(f["fg_mask_path"]) if f.get("fg_mask_path") else None for f in frames]
    found = [path if path is not None and path.is_file() else None for path in paths]
    if None in found:
        logger.warning(
            "%d of %d pictures in %s have no mask; the whole picture counts as the person there.",
            found.count(None),
            len(found),
            folder,
        )
    return found


def _check_sizes(paths: Sequence[Path], cameras: Cameras) -> None:
    for path in paths:
        size = read_picture_size(path)
        if size != (cameras.width, cameras.height):
            raise ValueError(
                f"{path} must be {cameras.width} x {cameras.height} pixels as its camera says, "
                f"got {size[0]} x {size[1]}."
            )


# tracking -----------------------------------------------------------------------------------------


def _read_tracking(
    folder: Path, frames: list[Frame], sources: list[Path]
) -> tuple[Tensor, RigParams, Tensor]:
    """Time step of each picture [K], parameters of each time step, static offset [V, 3]."""
    files: dict[int, Path] = {}
    for frame, source in zip(frames, sources, strict=True):
        step = int(_number({"timestep_index": 0, **frame}, "timestep_index", source))
        if "flame_param_path" not in frame:
            raise ValueError(
                f"`flame_param_path` of {frame['file_path']} in {source} is missing: run a tracker "
                "such as VHAP on the pictures first."
            )
        path = folder / str(frame["flame_param_path"])
        if not path.is_file():
            raise FileNotFoundError(f"{source} names {path}, and there is no such file.")
        if files.setdefault(step, path) != path:
            raise ValueError(
                f"`timestep_index` {step} of {frame['file_path']} in {source} has two files of "
                f"parameters, {files[step]} and {path}."
            )
    order = {step: row for row, step in enumerate(sorted(files))}
    tracked = [_read_step(files[step]) for step in order]
    rig_params = _join_steps([params for params, _ in tracked], folder)
    offset = tracked[0][1]
    timesteps = [order[int(frame.get("timestep_index", 0))] for frame in frames]
    return torch.tensor(timesteps), rig_params, torch.zeros(0, 3) if offset is None else offset


def _read_step(path: Path) -> tuple[RigParams, Tensor | None]:
    params, offset = read_params(path)
    if len(params) != 1:
        raise ValueError(f"{path} must hold the parameters of one time step, got {len(params)}.")
    return params, offset


def _join_steps(steps: list[RigParams], folder: Path) -> RigParams:
    """All steps with the shape of the first, as GaussianAvatars takes it."""
    first = steps[0]
    for step in steps:
        for name in ("betas", "expression"):
            widths = getattr(first, name).shape[1], getattr(step, name).shape[1]
            if widths[0] != widths[1]:
                raise ValueError(
                    f"`{name}` must have the same length in all files of {folder}, got "
                    f"{widths[0]} and {widths[1]}."
                )
    betas = torch.cat([step.betas - first.betas for step in steps])
    apart = float(betas.abs().max()) if betas.numel() else 0.0
    if apart > SHAPE_TOLERANCE:
        logger.warning(
            "Shape coefficients differ by up to %.2f between the time steps of %s, as in a union "
            "of sequences that were tracked one by one; those of the first are used.",
            apart,
            folder,
        )
    names = [name for name in vars(first) if name != "betas"]
    joined = {name: torch.cat([getattr(step, name) for step in steps]) for name in names}
    return replace(first, betas=first.betas.expand(len(steps), -1), **joined)
