# SPDX-License-Identifier: Apache-2.0
"""Which of a file's names are ARKit's coefficients, and their values as one matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .arkit_names import find_arkit_name

NOT_ARKIT = "no coefficient of ARKit's"


def match_columns(names: Iterable[str], path: Path) -> dict[str, str]:
    """ARKit's names of those that have one, by what the file calls them.

    Raises:
        ValueError: Two names mean the same coefficient.
    """
    found: dict[str, str] = {}
    for name in names:
        ours = find_arkit_name(name)
        if ours in found.values():
            other = next(theirs for theirs, known in found.items() if known == ours)
            raise ValueError(
                f"{path} must hold each coefficient once, got `{ours}` as {other!r} and as "
                f"{name!r}. Take one of them out."
            )
        if ours is not None:
            found[name] = ours
    return found


def stack_frames(
    frames: Sequence[dict[str, float] | None], names: Iterable[str], path: Path
) -> Tensor:
    """Values of named frames; one without a face becomes NaN. [T, C] float64

    Args:
        frames: By the file's names; None where there is no face.
        names: Of the columns wanted.
        path: Of the file, for messages.

    Raises:
        ValueError: A frame with a face lacks a name.
    """
    names, rows = list(names), []
    for number, frame in enumerate(frames):
        missing = [name for name in names if name not in frame] if frame is not None else []
        if missing:
            raise ValueError(
                f"Frame {number} of {path} must hold the coefficients that the others have, and it "
                f"lacks {', '.join(missing)}."
            )
        rows.append([math.nan if frame is None else frame[name] for name in names])
    return torch.tensor(rows, dtype=torch.float64).reshape(len(frames), len(names))


def insert_missing(numbers: Sequence[float], values: Tensor, path: Path) -> tuple[Tensor, Tensor]:
    """Rows of NaN for frames that a count leaps over.

    Args:
        numbers: Of the frames, growing.
        values: [T, C]
        path: Of the file, for messages.

    Returns:
        [T', C], and where each of the T rows went [T].
    """
    at = torch.tensor(list(numbers), dtype=torch.float64)
    if not torch.isfinite(at).all() or (at != at.round()).any() or (at.diff() <= 0).any():
        raise ValueError(f"The numbers of the frames of {path} must be whole and grow.")
    at = (at - at[0]).long()
    if at[-1] >= 10 * len(at) + 1000:
        raise ValueError(f"The numbers of the frames of {path} leap too far, to {int(at[-1])}.")
    filled = values.new_full((int(at[-1]) + 1, values.shape[1]), torch.nan)
    filled[at] = values
    return filled, at
