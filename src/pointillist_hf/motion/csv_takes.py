# SPDX-License-Identifier: Apache-2.0
"""Takes in .csv: a row per frame and a column per coefficient, as Live Link Face writes them.

Live Link Face heads its columns `Timecode, BlendShapeCount, EyeBlinkLeft, ..., TongueOut, HeadYaw,
HeadPitch, HeadRoll, LeftEyeYaw, ...`; angles are radians about the axes of ARKit's face, as
`takes.turn_quaternions` says. Tables with a row per category, as users of MediaPipe write them, are
in `mediapipe_takes`.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from .arkit_names import fold_name
from .columns import NOT_ARKIT, insert_missing, match_columns
from .csv_table import EMPTY, Table
from .takes import Take, turn_quaternions
from .timecodes import read_time_codes, scale_times

TIME_CODES = ("timecode", "tc")
TIMES = (
    "time", "timestamp", "timems", "timestampms", "times", "timeseconds", "timestamps", "seconds",
    "milliseconds", "timesec", "timestampsec", "timestampus", "timeus", "timestampns", "t",
)  # fmt: skip
FRAME_NUMBERS = ("frame", "frameindex", "framenumber", "frameid", "framenum")
RATES = ("fps", "framerate")
FACES = ("success", "detected", "facedetected", "tracked", "istracked", "hasface")
NO_FACE = ("0", "0.0", "false", "no")
HEAD = ("headyaw", "headpitch", "headroll")
EYES = tuple(
    name
    for side in ("left", "right")
    for turn in ("yaw", "pitch", "roll")
    for name in (f"{side}eye{turn}", f"eye{turn}{side}")
)
BOOKKEEPING = ("", "blendshapecount", "neutral", "index")
# A face tracker loses sight of a face before it has turned that far, radians.
WIDEST_TURN = 1.6


def read_csv_take(table: Table, *, take_fps: float | None, head_rotation: bool) -> Take:
    """The take of a table with a column per coefficient.

    Args:
        table: As read.
        take_fps: Frames that make a second of a time code; None finds it.
        head_rotation: Whether turns of the head are wanted.

    Raises:
        ValueError: No column is ARKit's, or a cell is no number.
    """
    found = match_columns(table.columns, table.path)
    if not found or not table.lines:
        raise ValueError(
            f"{table.path} must have a header with ARKit's names (eyeBlinkLeft, jawOpen, ...) and "
            f"at least one row, got {', '.join(list(table.columns)[:4]) or 'an empty file'}."
        )
    folded = {fold_name(name): name for name in table.columns if name not in found}
    values = _values(table, list(found), folded)
    head = _head(table, folded) if head_rotation else None
    times = _times(table, folded, take_fps)
    numbers = next((folded[name] for name in FRAME_NUMBERS if name in folded), None)
    if times is None and numbers is not None:
        values, at = insert_missing(table.numbers(numbers), values, table.path)
        if head is not None:
            head = values.new_full((len(values), 4), torch.nan).index_copy(0, at, head)
    return Take(
        path=table.path,
        names=tuple(found.values()),
        values=values,
        times=times,
        rate=_rate(table, folded),
        head=head,
        left_out=_left_out(folded, head_rotation),
    )


def _values(table: Table, names: list[str], folded: dict[str, str]) -> Tensor:
    """Strengths, NaN where a row has no face. [T, C]"""
    values = torch.tensor([table.numbers(name) for name in names], dtype=torch.float64).T
    without = values.isnan().all(1)
    for name in (*FACES, "blendshapecount"):
        if name in folded:
            cells = table.columns[folded[name]]
            without |= torch.tensor([cell.lower() in NO_FACE for cell in cells])
    broken = values.isnan() & ~without[:, None]
    if len(names) == 1:  # a lone NaN is a damaged number rather than a frame without a face
        cells = table.columns[names[0]]
        broken |= torch.tensor([cell.lower() in EMPTY[1:] for cell in cells])[:, None]
    if broken.any():
        row, column = broken.nonzero()[0].tolist()
        raise ValueError(
            f"`{names[column]}` in line {table.lines[row]} of {table.path} must be a number, got "
            f"{table.columns[names[column]][row]!r}. A frame without a face leaves all "
            "coefficients empty."
        )
    values = values.clone()
    values[without] = torch.nan
    return values


def _times(table: Table, folded: dict[str, str], take_fps: float | None) -> Tensor | None:
    """Seconds of the frames, if a column says them. [T]"""
    for name in TIME_CODES:
        if name in folded:
            return read_time_codes(table.columns[folded[name]], table.path, take_fps)
    for name in TIMES:
        if name in folded:
            cells = table.columns[folded[name]]
            if any(":" in cell for cell in cells):
                return read_time_codes(cells, table.path, take_fps)
            numbers = torch.tensor(table.numbers(folded[name]), dtype=torch.float64)
            return scale_times(numbers, folded[name], table.path)
    return None


def _rate(table: Table, folded: dict[str, str]) -> float | None:
    for name in RATES:
        if name in folded:
            rates = set(table.numbers(folded[name]))
            if len(rates) != 1 or math.isnan(*rates):
                raise ValueError(f"`{folded[name]}` of {table.path} must be one number throughout.")
            return rates.pop()
    return None


def _head(table: Table, folded: dict[str, str]) -> Tensor | None:
    """Rotations of the head; radians, or degrees where they cannot be radians. [T, 4]"""
    if not all(name in folded for name in HEAD):
        return None
    angles = torch.tensor([table.numbers(folded[name]) for name in HEAD], dtype=torch.float64)
    return turn_quaternions(*scale_angles(angles, table.path))


def scale_angles(angles: Tensor, path: Path) -> Tensor:
    """Radians of angles of a head.

    Raises:
        ValueError: They are neither radians nor degrees.
    """
    widest = float(angles.nan_to_num(0).abs().max())
    if widest <= WIDEST_TURN:
        return angles
    unit = "degrees" if math.pi < widest <= math.degrees(WIDEST_TURN) else "nothing known"
    raise ValueError(
        f"Turns of the head in {path} must be radians of at most {WIDEST_TURN:g}, got {widest:g}, "
        f"which looks like {unit}. Convert them, or leave them out with `head_rotation=False`."
    )


def _left_out(folded: dict[str, str], head_rotation: bool) -> dict[str, str]:
    """Columns that move nothing, and why."""
    read = (*TIME_CODES, *TIMES, *FRAME_NUMBERS, *RATES, *FACES, *BOOKKEEPING)
    has_head = all(name in folded for name in HEAD)
    left_out = {}
    for name, theirs in folded.items():
        if name in HEAD and not (head_rotation and has_head):
            left_out[theirs] = "turns of the head" if has_head else "not all three turns are there"
        elif name in EYES:
            left_out[theirs] = "the eyeLook coefficients say the same"
        elif name not in (*read, *HEAD):
            left_out[theirs] = NOT_ARKIT
    return left_out
