# SPDX-License-Identifier: Apache-2.0
"""Writes captures in the layout that `captures` reads; the folder appears whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ...geometry.structures import Capture
from ...motion.vhap_params import write_params
from .reading import OPENGL_TO_OPENCV, SPLITS

PARTIAL_SUFFIX = ".partial"


def write_capture(capture: Capture, folder: str | Path) -> None:
    """Writes all files of a capture.

    Args:
        capture: Its name is not written: a capture is called as its folder.
        folder: Must not exist yet. What an interrupted call left behind is replaced.

    Raises:
        FileExistsError: There is something in that place.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"`folder` must not exist yet, and {folder} does.")
    cameras = list(dict.fromkeys(capture.camera_ids))
    names = {_picture_name(capture, number, cameras) for number in range(len(capture))}
    if len(names) < len(capture):
        raise ValueError(
            f"`capture` {capture.name} must have one picture of each camera at each time, got "
            f"{len(capture)} of {len(names)}: `camera_ids` must tell cameras apart."
        )
    partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("images", "fg_masks", "flame_param"):
        (partial / name).mkdir(parents=True)
    for number in range(len(capture)):
        name = _picture_name(capture, number, cameras)
        _write_picture(capture.images[number], partial / "images" / name)
        _write_picture(capture.masks[number], partial / "fg_masks" / name)
    offset = capture.static_offset if len(capture.static_offset) else None
    for step in range(len(capture.rig_params)):
        path = partial / "flame_param" / f"{step:05d}.npz"
        write_params(path, capture.rig_params[step : step + 1], offset)
    rest = capture.rig_params[:1]
    zero = {name: torch.zeros_like(value) for name, value in vars(rest).items() if name != "betas"}
    # The original program takes this file as the mark of such a folder.
    write_params(
        partial / "canonical_flame_param.npz", type(rest)(betas=rest.betas, **zero), offset
    )
    for split in SPLITS:
        _write_transforms(capture, capture.of_split(split), cameras, partial, f"_{split}")
    _write_transforms(capture, range(len(capture)), cameras, partial, "")
    os.replace(partial, folder)


def _picture_name(capture: Capture, number: int, cameras: list[str]) -> str:
    step = int(capture.timesteps[number])
    return f"{step:05d}_{cameras.index(capture.camera_ids[number]):02d}.png"


def _write_picture(values: Tensor, path: Path) -> None:
    pixels = (255 * values).round().clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def _write_transforms(
    capture: Capture, numbers: list[int] | range, cameras: list[str], folder: Path, suffix: str
) -> None:
    frames = [_frame(capture, number, cameras) for number in numbers]
    content: dict[str, object] = {} if capture.rig is None else {"rig": dict(capture.rig)}
    if frames:
        keys = ("cx", "cy", "fl_x", "fl_y", "h", "w", "camera_angle_x", "camera_angle_y")
        content |= {key: frames[-1][key] for key in keys}
    content["timestep_indices"] = sorted({frame["timestep_index"] for frame in frames})
    content["camera_indices"] = sorted({frame["camera_index"] for frame in frames})
    content["frames"] = frames
    (folder / f"transforms{suffix}.json").write_text(json.dumps(content, indent=1), "utf-8")


def _frame(capture: Capture, number: int, cameras: list[str]) -> dict[str, object]:
    step, name = int(capture.timesteps[number]), _picture_name(capture, number, cameras)
    width, height = capture.cameras.width, capture.cameras.height
    intrinsics = capture.cameras.Ks[number].double()
    fl_x, fl_y = float(intrinsics[0, 0]), float(intrinsics[1, 1])
    camera_to_world = torch.linalg.inv(capture.cameras.viewmats[number].double())
    return {
        "timestep_index": step,
        "timestep_index_original": step,
        "timestep_id": f"{step:06d}",
        "camera_index": cameras.index(capture.camera_ids[number]),
        "camera_id": capture.camera_ids[number],
        "cx": float(intrinsics[0, 2]),
        "cy": height - float(intrinsics[1, 2]),
        "fl_x": fl_x,
        "fl_y": fl_y,
        "h": height,
        "w": width,
        "camera_angle_x": 2 * math.atan(width / 2 / fl_x),
        "camera_angle_y": 2 * math.atan(height / 2 / fl_y),
        "transform_matrix": (camera_to_world @ OPENGL_TO_OPENCV).tolist(),
        "file_path": f"images/{name}",
        "fg_mask_path": f"fg_masks/{name}",
        "flame_param_path": f"flame_param/{step:05d}.npz",
    }
