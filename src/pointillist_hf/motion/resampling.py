# SPDX-License-Identifier: Apache-2.0
"""Takes at the rate of a clip: the take's own times are kept, and short gaps are bridged."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.rotations import axis_angle_to_quat, matrix_to_axis_angle, quat_to_matrix
from ..geometry.structures import POSE_NAMES, RigParams
from .takes import Take

logger = logging.getLogger(__name__)

LOWEST_RATE, HIGHEST_RATE = 1.0, 1000.0  # frames per second
DEFAULT_RATE = 30.0  # of takes that say nothing, where seconds are needed to judge a gap
MAX_GAP = 0.5  # seconds
JUMP = 1.5  # of the usual step; a longer one has lost frames


def check_rate(name: str, rate: float | None) -> None:
    """Refuses what is no number of frames per second; None is left open."""
    if rate is not None and not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"`{name}` must be {LOWEST_RATE:g} to {HIGHEST_RATE:g} frames per second, got {rate:g}."
        )


def time_take(take: Take, take_fps: float | None) -> Take:
    """The take with the times of its frames, if anything says them.

    Args:
        take: As recorded.
        take_fps: What the user knows; it goes before the file's rate, not before its times.
    """
    if take.times is not None:
        if len(take) > 1 and not (take.times.diff() > 0).all():
            row = int((take.times.diff() <= 0).nonzero()[0]) + 1
            raise ValueError(
                f"The times of {take.path} must grow from frame to frame, got "
                f"{float(take.times[row]):g} s after {float(take.times[row - 1]):g} s (frame "
                f"{row + 1}). Sort the rows, or drop the column and say `take_fps`."
            )
        return take
    rate = take_fps or take.rate
    if rate is None:
        return take
    check_rate("take_fps" if take_fps else f"rate of {take.path}", rate)
    return replace(take, times=torch.arange(len(take), dtype=torch.float64) / rate)


def fill_gaps(take: Take, max_gap: float = MAX_GAP) -> Take:
    """The take without frames that lack a face: they lie between their neighbours.

    Args:
        take: With or without times.
        max_gap: Seconds without a face that are bridged.

    Raises:
        ValueError: A gap is longer.
    """
    missing = take.values.isnan().any(1)
    times = take.times
    if times is None:
        times = torch.arange(len(take), dtype=torch.float64) / DEFAULT_RATE
    here = (~missing).nonzero()[:, 0]
    lost = int(missing.sum()) + _check_gaps(take, times, here, max_gap)
    if lost:
        logger.warning(
            "%s has %d frame%s without a face, which lie%s between neighbours.",
            take.path,
            lost,
            "s" if lost > 1 else "",
            "" if lost > 1 else "s",
        )
    if not missing.any():
        return replace(take, head=_fill_head(take, times))
    low, high, along = _neighbours(times[here], times)
    values = torch.lerp(take.values[here][low], take.values[here][high], along[:, None])
    filled = replace(take, values=values)
    return replace(filled, head=_fill_head(filled, times))


def _check_gaps(take: Take, times: Tensor, here: Tensor, max_gap: float) -> int:
    """Refuses a long gap; returns how many frames are not even there."""
    step = float(times.diff().median()) if len(times) > 1 else 0.0
    ends = torch.cat([times[:1] - step, times[here], times[-1:] + step])
    without = ends.diff() - step
    if (without > max_gap + 1e-6).any():
        at = int(without.argmax())
        raise ValueError(
            f"{take.path} has no face for {float(without[at]):.2f} s from {float(ends[at]):.2f} s "
            f"on; gaps of at most {max_gap:g} s are bridged. Cut the take there, or allow "
            "more with `max_gap`."
        )
    jumps = times.diff()[times.diff() > JUMP * step]
    return int(sum(round(float(jump) / step) - 1 for jump in jumps))


def _fill_head(take: Take, times: Tensor) -> Tensor | None:
    """Rotations for frames that lack one; none where no frame has any."""
    if take.head is None:
        return None
    here = (~take.head.isnan().any(1)).nonzero()[:, 0]
    if not len(here):
        return None
    return _turn_between(take.head[here], *_neighbours(times[here], times))


def warn_of_frames(path: Path, count: int, fps: float) -> None:
    """Says that frames are taken one by one, for want of times."""
    logger.warning(
        "%s says nothing of its times; its %d frames are those of a clip at %g fps. Another rate "
        "goes into `take_fps`.",
        path,
        count,
        fps,
    )


def resample_take(take: Take, fps: float | None) -> Take:
    """The take at a rate; without one, its frames as they are if they are evenly spaced.

    Args:
        take: Without gaps.
        fps: Of the clip.
    """
    if take.times is None:
        if fps is not None:
            warn_of_frames(take.path, len(take), fps)
        return take
    steps = take.times.diff()
    if fps is None:
        if len(take) < 3 or bool(((steps / steps.median() - 1).abs() < 0.5).all()):
            return take
        fps = 1 / float(steps.median())
    wanted = clip_times(take.times, fps)
    low, high, along = _neighbours(take.times, wanted)
    head = None if take.head is None else _turn_between(take.head, low, high, along)
    values = torch.lerp(take.values[low], take.values[high], along[:, None])
    return replace(take, values=values, head=head, times=wanted)


def resample_params(params: RigParams, take_fps: float, fps: float) -> RigParams:
    """Rig parameters at another rate: angles turn the short way, the rest lies between.

    Args:
        params: T frames.
        take_fps: Their rate.
        fps: The rate wanted.
    """
    times = torch.arange(len(params), dtype=torch.float64) / take_fps
    low, high, along = _neighbours(times, clip_times(times, fps))
    share = along.to(params.betas)
    columns = {
        name: torch.lerp(column[low], column[high], share[:, None])
        for name, column in vars(params).items()
        if name not in POSE_NAMES
    }
    for name in POSE_NAMES:
        quats = axis_angle_to_quat(getattr(params, name))
        turned = _turn_between(quats, low, high, share)
        columns[name] = matrix_to_axis_angle(quat_to_matrix(turned))
    return RigParams(**columns)


def clip_times(times: Tensor, fps: float) -> Tensor:
    """When the frames of a clip fall between the first and the last of a take, seconds. [T']"""
    count = int((float(times[-1] - times[0]) * fps) + 1e-6) + 1
    return times[0] + torch.arange(count, dtype=torch.float64) / fps


def _neighbours(times: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The frames before and after each time, and how far it lies between them, [0, 1]."""
    high = torch.searchsorted(times, wanted).clamp(0, len(times) - 1)
    low = (high - 1).clamp_min(0)
    along = (wanted - times[low]) / (times[high] - times[low]).clamp_min(1e-12)
    return low, high, along.clamp(0, 1)


def _turn_between(quats: Tensor, low: Tensor, high: Tensor, along: Tensor) -> Tensor:
    """Rotations between neighbours, which are close: the chord will do for the arc."""
    first, second = quats[low], quats[high]
    second = torch.where((first * second).sum(-1, keepdim=True) < 0, -second, second)
    return normalize(torch.lerp(first, second, along[:, None].to(first)), dim=-1)
