# SPDX-License-Identifier: Apache-2.0
"""Curves that speech makes: names once, then a list of weights per frame.

LAM's Audio2Expression writes `names`, `metadata: {fps, frame_count, blendshape_names}` and `frames:
[{weights, time, rotation}]`; Audio2Face `facsNames`, `weightMat` and `exportFps`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from .columns import NOT_ARKIT, match_columns, stack_frames
from .json_file import Json, as_number, find_key
from .takes import Take

NAMES = ("names", "blendshape_names", "blendshapeNames", "facsNames")
RATES = ("fps", "exportFps", "frame_rate", "frameRate")
FRAMES = ("frames", "weightMat", "weights")


def has_named_weights(record: Json) -> bool:
    """Whether a file is of this kind."""
    return isinstance(record, dict) and _names(record) is not None


def read_named_weights(record: dict[str, Json], path: Path) -> Take:
    """The take of a file of weights.

    Raises:
        ValueError: A frame has another number of weights than there are names.
    """
    names = _names(record)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`names` of {path} must be a list of names.")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"`names` of {path} must be unlike, got {sorted(twice)[0]!r} twice.")
    found = match_columns(names, path)
    if not found:
        raise ValueError(f"`names` of {path} must be ARKit's, got {', '.join(names[:4])}.")
    frames = find_key(record, *FRAMES)
    if not isinstance(frames, list) or not frames:
        raise ValueError(f"`frames` of {path} must be a list of at least one frame.")
    rows = [_weights(frame, names, number, path) for number, frame in enumerate(frames)]
    left_out = {name: NOT_ARKIT for name in names if name not in found}
    if any(isinstance(frame, dict) and frame.get("rotation") for frame in frames):
        left_out["rotation"] = "turns of the head in no known convention"
    return Take(
        path=path,
        names=tuple(found.values()),
        values=stack_frames(rows, found, path),
        times=_times(frames, path),
        rate=_rate(record, path),
        left_out=left_out,
    )


def _metadata(record: dict[str, Json]) -> dict[str, Json]:
    metadata = record.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _names(record: dict[str, Json]) -> Json:
    return find_key(record, *NAMES) or find_key(_metadata(record), *NAMES)


def _rate(record: dict[str, Json], path: Path) -> float | None:
    rate = find_key(_metadata(record), *RATES) or find_key(record, *RATES)
    return None if rate is None else as_number(rate, f"`fps` of {path}")


def _weights(frame: Json, names: list[str], number: int, path: Path) -> dict[str, float] | None:
    """Weights by name; None for a frame without a face."""
    weights = frame.get("weights") if isinstance(frame, dict) else frame
    if weights is None or weights == []:
        return None
    if not isinstance(weights, list) or len(weights) != len(names):
        got = len(weights) if isinstance(weights, list) else type(weights).__name__
        raise ValueError(
            f"`weights` of frame {number} of {path} must be {len(names)} numbers, one per name, "
            f"got {got}."
        )
    what = f"of frame {number} of {path}"
    pairs = zip(names, weights, strict=True)
    return {name: as_number(weight, f"`{name}` {what}") for name, weight in pairs}


def _times(frames: list[Json], path: Path) -> torch.Tensor | None:
    """Seconds, if every frame says its own. [T]"""
    times = [frame.get("time") if isinstance(frame, dict) else None for frame in frames]
    if any(time is None for time in times):
        return None
    seconds = [as_number(time, f"`time` of frame {i} of {path}") for i, time in enumerate(times)]
    return torch.tensor(seconds, dtype=torch.float64) - seconds[0]
