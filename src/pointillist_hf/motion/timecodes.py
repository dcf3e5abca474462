# SPDX-License-Identifier: Apache-2.0
"""When the frames of a take were recorded, in seconds from the first.

A time code counts frames within a second, HH:MM:SS:FF, with fractions of a frame behind a point or
none. How many frames make a second stands in no code; it is seen where the count starts again.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

TIME_CODE = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})[:;](\d{1,3}(?:\.\d+)?)")
CLOCK = re.compile(r"(?:(\d{1,2}):)?(\d{1,2}):(\d{2}(?:\.\d+)?)")
RATES = (24, 25, 30, 48, 50, 60, 100, 120, 240)  # frames per second of recorders
DEFAULT_RATE = 60  # of Live Link Face, for takes too short to tell
DAY = 24 * 3600
# Seconds in the unit of a column whose name says none, by its usual step: frames come at 1 to 500
# per second.
UNITS = ((0.002, 1.0, 1.0), (2.0, 1000.0, 1e-3), (2000.0, 1e6, 1e-6), (2e6, 1e9, 1e-9))


def read_time_codes(codes: list[str], path: Path, rate: float | None = None) -> Tensor | None:
    """Seconds of time codes, or None where all codes are the same.

    Args:
        codes: HH:MM:SS:FF, HH:MM:SS:FF.fff, or HH:MM:SS.fff.
        path: Of the file, for messages.
        rate: Frames that make a second; None finds it.

    Returns:
        From the first. [T] float64
    """
    if len(codes) > 1 and len(set(codes)) == 1:
        logger.warning("The time codes of %s stand still at %s; they are left out.", path, codes[0])
        return None
    if all(CLOCK.fullmatch(code) for code in codes):
        return _since_first(torch.tensor([_clock_seconds(c) for c in codes], dtype=torch.float64))
    parts = []
    for code in codes:
        match = TIME_CODE.fullmatch(code)
        if match is None:
            raise ValueError(
                f"Time codes of {path} must look like 01:02:03:04.000 (hours, minutes, seconds, "
                f"frames), got {code!r}."
            )
        hours, minutes, seconds, frames = match.groups()
        parts.append((3600 * int(hours) + 60 * int(minutes) + int(seconds), float(frames)))
    whole, frames = torch.tensor(parts, dtype=torch.float64).unbind(1)
    return _since_first(whole + frames / (rate or find_rate(whole, frames, path)))


def find_rate(seconds: Tensor, frames: Tensor, path: Path) -> float:
    """How many frames make a second: where the second changes, the count starts again.

    Args:
        seconds: Whole ones. [T]
        frames: Within the second. [T]
        path: Of the file, for messages.

    Raises:
        ValueError: The count fits no rate of a recorder.
    """
    steps, jumps = frames.diff(), seconds.diff()
    within, across = steps[jumps == 0], steps[jumps == 1]
    highest = float(frames.max())
    if not len(across) or not len(within):
        known = [rate for rate in RATES if rate > highest]
        rate = DEFAULT_RATE if highest < DEFAULT_RATE else known[0] if known else 1000
        logger.warning(
            "%s is too short to tell how many frames of its time code make a second; taken for %d. "
            "Another number goes into `take_fps`.",
            path,
            rate,
        )
        return rate
    # From the last count of a second to the first of the next is one usual step; frames may lack.
    found = float((within.median() - across).median())
    nearest = min((*RATES, 1000), key=lambda rate: abs(rate - found))
    if nearest < highest or abs(nearest - found) > max(1.5, 0.04 * found):
        raise ValueError(
            f"The time codes of {path} must count to a rate of recorders ("
            f"{', '.join(map(str, RATES))} frames per second), got about {found:g} with counts up "
            f"to {highest:g}. Say it with `take_fps`."
        )
    return float(nearest)


def scale_times(values: Tensor, name: str, path: Path) -> Tensor:
    """Seconds of a column of times; its unit stands in its name or follows from its steps.

    Args:
        values: As written. [T] float64
        name: Of the column.
        path: Of the file, for messages.
    """
    if not torch.isfinite(values).all():
        raise ValueError(f"`{name}` of {path} must be finite numbers in every row.")
    lowered = name.lower()
    for endings, unit in ((("_ms", "millis", "milliseconds"), 1e-3), (("_us", "_ns"), None)):
        if lowered.endswith(endings) or (name.endswith("Ms") and unit == 1e-3):
            unit = unit or (1e-6 if lowered.endswith("us") else 1e-9)
            return _since_first(values) * unit
    if len(values) < 2 or lowered.endswith(("_s", "seconds", "sec")):
        return _since_first(values)
    step = float(values.diff().median())
    for least, most, unit in UNITS:
        if least <= step <= most:
            return _since_first(values) * unit
    raise ValueError(
        f"`{name}` of {path} must hold times of 1 to 500 frames per second, in seconds or "
        f"milliseconds, got steps of {step:g}. Say the unit in its name, as in time_ms."
    )


def _since_first(seconds: Tensor) -> Tensor:
    """Seconds from the first frame; a take may run past midnight."""
    days = torch.cumsum((seconds.diff() < -DAY / 2).to(seconds), 0)
    seconds = seconds.clone()
    if len(seconds) > 1 and float(seconds.max()) < DAY + 1:
        seconds[1:] += DAY * days
    return seconds - seconds[0]


def _clock_seconds(text: str) -> float:
    match = CLOCK.fullmatch(text)
    hours, minutes, seconds = match.groups() if match else (None, "0", "0")
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds)
