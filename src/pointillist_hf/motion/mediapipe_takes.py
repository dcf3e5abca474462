# SPDX-License-Identifier: Apache-2.0
"""What users of MediaPipe's FaceLandmarker write: named scores per frame, and head matrices.

In .json, frames are results as MediaPipe shows them in Python or JavaScript, `face_blendshapes`
with categories, or plain objects of names and scores. In .csv, a row per category. A frame without
a face has no categories. `facial_transformation_matrixes` take MediaPipe's face, whose axes are the
rig's (x to the subject's left, y up, z out of the face), before a camera that looks along -z.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from ..geometry.rotations import matrix_to_quat
from .arkit_names import find_arkit_name, fold_name
from .columns import NOT_ARKIT, insert_missing, match_columns, stack_frames
from .csv_table import Table
from .json_file import Json, as_number, find_key
from .takes import Take
from .timecodes import scale_times

FRAMES = ("frames", "results", "data")
SHAPES = ("faceblendshapes", "blendshapes", "coefficients", "weights")
MATRICES = (
    "facialtransformationmatrixes", "facialtransformationmatrix", "facialtransformationmatrices",
    "transformationmatrix", "transformationmatrixes",
)  # fmt: skip
TIMES = ("timestampms", "timems", "timestamp", "time")
RATES = ("fps", "frame_rate", "frameRate")
NAME_COLUMNS = ("categoryname", "blendshape", "blendshapename", "displayname", "name")
SCORE_COLUMNS = ("score", "value", "weight")
FRAME_COLUMNS = ("frame", "frameindex", "framenumber", "frameid")
NOT_MOTION = ("neutral", "frame", "frameindex", "index")
MAX_SHEAR = 0.05  # of the columns of a matrix from a rotation, after its scale is taken out

Frame = dict[str, float] | None


def has_categories(table: Table) -> bool:
    """Whether a table has a row per category."""
    folded = {fold_name(name) for name in table.columns}
    return bool(folded & {*NAME_COLUMNS}) and bool(folded & {*SCORE_COLUMNS})


def read_category_table(table: Table) -> Take:
    """The take of a table with a row per category and frame."""
    folded = {fold_name(name): name for name in table.columns}
    names = table.columns[next(folded[name] for name in NAME_COLUMNS if name in folded)]
    scores = table.numbers(next(folded[name] for name in SCORE_COLUMNS if name in folded))
    keys = [folded[name] for name in (*TIMES, *FRAME_COLUMNS) if name in folded]
    moments = table.numbers(keys[0]) if keys else [0.0] * len(names)
    frames: dict[float, dict[str, float]] = {}
    for line, moment, name, score in zip(table.lines, moments, names, scores, strict=True):
        frame = frames.setdefault(moment, {})
        if name in frame:
            raise ValueError(f"Line {line} of {table.path} gives `{name}` twice in one frame.")
        if name and not math.isfinite(score):
            raise ValueError(f"Line {line} of {table.path} must give `{name}` a number.")
        if name:
            frame[name] = score
    take = _build_take([frame or None for frame in frames.values()], table.path)
    if keys and fold_name(keys[0]) in TIMES:
        times = scale_times(torch.tensor([*frames], dtype=torch.float64), keys[0], table.path)
        return Take(table.path, take.names, take.values, times, left_out=take.left_out)
    values, _ = insert_missing([*frames], take.values, table.path)
    return Take(table.path, take.names, values, left_out=take.left_out)


def read_result_frames(record: Json, path: Path, *, head_rotation: bool) -> Take:
    """The take of a .json with a result per frame.

    Raises:
        ValueError: There are no frames, or one is not like the others.
    """
    whole = record if isinstance(record, dict) else {}
    frames = find_key(whole, *FRAMES) if whole else record
    if not isinstance(frames, list) or not frames:
        raise ValueError(
            f"{path} must hold `frames`, a list of at least one, or `names` and `weights`. Is it a "
            "take?"
        )
    folded = [
        {
            name if find_arkit_name(name) else fold_name(name): (name, value)
            for name, value in frame.items()
        }
        if isinstance(frame, dict)
        else {"blendshapes": ("blendshapes", frame)}
        for frame in frames
    ]
    scores = [_scores(frame, number, path) for number, frame in enumerate(folded)]
    rate = find_key(whole, *RATES) or find_key(_as_dict(whole.get("metadata")), *RATES)
    matrices = [_matrix(frame, number, path) for number, frame in enumerate(folded)]
    known = [matrix for matrix in matrices if matrix is not None]
    take = _build_take(scores, path)
    left_out = take.left_out
    if known and not head_rotation:
        left_out["facial_transformation_matrixes"] = "turns of the head"
    if any(_num_faces(frame[key][1]) > 1 for frame in folded for key in SHAPES if key in frame):
        left_out["further faces"] = "the first of a frame is taken"
    unknown = torch.full((3, 3), torch.nan, dtype=torch.float64)
    head = torch.stack([unknown if matrix is None else matrix for matrix in matrices])
    return Take(
        path=path,
        names=take.names,
        values=take.values,
        times=_times(folded, path),
        rate=None if rate is None else as_number(rate, f"`fps` of {path}"),
        head=matrix_to_quat(head) if known and head_rotation else None,
        left_out=left_out,
    )


def _as_dict(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _build_take(frames: list[Frame], path: Path) -> Take:
    """Names of the first frame that has a face; the others must have them too."""
    first = next((frame for frame in frames if frame), None)
    if first is None:
        raise ValueError(f"{path} must hold at least one frame with a face, got none.")
    found = match_columns(first, path)
    if not found:
        raise ValueError(
            f"{path} must hold scores under ARKit's names (eyeBlinkLeft, jawOpen, ...), got "
            f"{', '.join(list(first)[:4])}."
        )
    others = {name for frame in frames if frame for name in frame} - {*found}
    surprise = sorted(name for name in others if find_arkit_name(name))
    if surprise:
        raise ValueError(
            f"The frames of {path} must hold the same coefficients, and some lack "
            f"{', '.join(surprise)}."
        )
    left_out = {name: NOT_ARKIT for name in sorted(others) if fold_name(name) not in NOT_MOTION}
    return Take(path, tuple(found.values()), stack_frames(frames, found, path), left_out=left_out)


def _scores(frame: dict[str, tuple[str, Json]], number: int, path: Path) -> Frame:
    """Scores by name; None for a frame without a face."""
    holder = next((frame[key][1] for key in SHAPES if key in frame), frame)
    if holder is frame:
        plain = {theirs: value for name, (theirs, value) in frame.items() if name not in
                 (*TIMES, *MATRICES, *NOT_MOTION)}  # fmt: skip
        if not plain or all(value is None for value in plain.values()):
            return None
        holder = plain
    scores = _categories(holder, number, path)
    what = f"of frame {number} of {path}"
    return {
        name: as_number(score, f"`{name}` {what}") if find_arkit_name(name) else math.nan
        for name, score in scores.items()
    } or None


def _num_faces(holder: Json) -> int:
    """How many faces a list is of; zero for a list of categories and for anything else."""
    if not isinstance(holder, list) or not holder:
        return 0
    is_of_faces = isinstance(holder[0], list) or "categories" in _as_dict(holder[0])
    return len(holder) if is_of_faces else 0


def _categories(holder: Json, number: int, path: Path) -> dict[str, Json]:
    """Scores by name of a list of categories, of a list of faces, or of an object of either."""
    if holder is None or holder == []:
        return {}
    if isinstance(holder, dict):
        inner = holder.get("categories")
        return holder if inner is None else _categories(inner, number, path)
    if _num_faces(holder):
        return _categories(holder[0], number, path)
    names = [
        find_key(_as_dict(category), "category_name", "categoryName", "name", "display_name")
        for category in (holder if isinstance(holder, list) else [None])
    ]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"Frame {number} of {path} must hold categories with a name and a score each."
        )
    if len({*names}) < len(names):
        raise ValueError(f"Frame {number} of {path} must name each category once.")
    return {
        name: find_key(category, "score", "value")
        for name, category in zip(names, holder, strict=True)
    }


def _times(frames: list[dict[str, tuple[str, Json]]], path: Path) -> Tensor | None:
    """Seconds, if every frame says its own. [T]"""
    for key in TIMES:
        if all(key in frame and frame[key][1] is not None for frame in frames):
            name = frames[0][key][0]
            moments = [as_number(frame[key][1], f"`{name}` of {path}") for frame in frames]
            return scale_times(torch.tensor(moments, dtype=torch.float64), name, path)
    return None


def _matrix(frame: dict[str, tuple[str, Json]], number: int, path: Path) -> Tensor | None:
    """The rotation of the first face's matrix. [3, 3]"""
    value = next((frame[key][1] for key in MATRICES if key in frame), None)
    is_flat = False
    while _is_nested(value):
        is_flat = isinstance(value, dict)
        value = value["data"] if is_flat else value[0]
    if value is None or value == []:
        return None
    what = f"The matrix of frame {number} of {path}"
    rows = value if isinstance(value, list) else []
    cells = [cell for row in rows for cell in (row if isinstance(row, list) else [row])]
    if len(cells) != 16:
        raise ValueError(f"{what} must be 4 x 4 numbers, got {len(cells)}.")
    numbers = [as_number(cell, what) for cell in cells]
    matrix = torch.tensor(numbers, dtype=torch.float64).reshape(4, 4)
    # JavaScript writes columns one after the other; without a shift only the shape tells.
    if matrix[:3, 3].abs().max() < 1e-9 and (matrix[3, :3].abs().max() > 1e-9 or is_flat):
        matrix = matrix.T
    return _as_rotation(matrix[:3, :3], what)


def _is_nested(value: Json) -> bool:
    """Whether a matrix lies within: a list of faces, or an object with `data`."""
    if isinstance(value, dict):
        return "data" in value
    if not isinstance(value, list) or not value or not isinstance(value[0], list | dict):
        return False
    return len(value) != 4 or isinstance(value[0], dict) or isinstance((value[0] or [0])[0], list)


def _as_rotation(matrix: Tensor, what: str) -> Tensor:
    """The rotation of a matrix that scales alike in all directions. [3, 3]"""
    scale = matrix.norm(dim=0).mean()
    turned = matrix / scale.clamp_min(1e-12)
    strays = (turned.T @ turned - torch.eye(3).to(turned)).abs().max()
    if strays > MAX_SHEAR or torch.linalg.det(turned) < 0:
        raise ValueError(f"{what} must turn and scale alone, and it shears or mirrors.")
    return turned
