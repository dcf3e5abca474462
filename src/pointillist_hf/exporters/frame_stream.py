# SPDX-License-Identifier: Apache-2.0
"""Frames on their way to a file, one at a time.

A frame is sRGB in [0, 1], [H, W, 3]; values beyond are cut off. Writers take all frames in one
tensor or an iterator that makes them, and hold no more than two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeVar

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..geometry.structures import check_shape

Frame = TypeVar("Frame")
Frames = Tensor | Iterable[Tensor]

MIN_FPS, MAX_FPS = 0.01, 1000.0
# Seconds after which a progress bar shows, on terminals only.
PROGRESS_DELAY = 2.0


def check_fps(fps: float, *, highest: float = MAX_FPS) -> None:
    """Refuses a rate of frames that is none."""
    if not MIN_FPS <= fps <= highest:
        raise ValueError(
            f"`fps` must be positive, {MIN_FPS:g} to {highest:g} frames per second, got {fps}."
        )


def to_pictures(frames: Frames) -> Iterator[Image.Image]:
    """The frames as 8-bit pictures of one size; each is asked for when its turn comes.

    Raises:
        ValueError: There is no frame; or one is no picture, of another size than the first, or
            not finite.
    """
    if isinstance(frames, Tensor):
        check_shape("frames", frames, (None, None, None, 3))
    size = None
    for index, frame in enumerate(frames):
        picture = _to_picture(frame, index)
        size = size or picture.size
        if picture.size != size:
            raise ValueError(
                f"`frames` must have one size, got {size[1]} x {size[0]} and, as frame {index}, "
                f"{picture.size[1]} x {picture.size[0]}."
            )
        yield picture
    if size is None:
        raise ValueError("`frames` must hold at least one picture, got none.")


def open_frames(frames: Frames) -> tuple[tuple[int, int], Iterator[Image.Image]]:
    """Width and height, for which the first frame is made, and all pictures."""
    pictures = to_pictures(frames)
    first = next(pictures)
    return first.size, chain([first], pictures)


def show_progress(frames: Iterable[Frame], count: int, name: str) -> Iterable[Frame]:
    """The same frames, with a bar on a terminal if they take long."""
    return tqdm(
        frames,
        desc=name,
        total=count,
        unit="frame",
        delay=PROGRESS_DELAY,
        disable=None,
        leave=False,
    )


def _to_picture(frame: Tensor, index: int) -> Image.Image:
    check_shape("frames", frame, (None, None, 3))
    if not frame.is_floating_point():
        raise ValueError(
            f"`frames` must be numbers in [0, 1], got {frame.dtype}; divide bytes by 255."
        )
    if not frame.isfinite().all():
        raise ValueError(f"`frames` must be finite, and frame {index} is not.")
    pixels = (255 * frame.detach().float().clamp(0, 1)).round().byte().cpu().numpy()
    return Image.fromarray(pixels)
