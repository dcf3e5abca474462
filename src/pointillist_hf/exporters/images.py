# SPDX-License-Identifier: Apache-2.0
"""Rendered frames as files to look at: an animated GIF, a folder of PNGs, or one with all of them.

Frames are sRGB in [0, 1]; values beyond are cut off. Clips are written as their frames come.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .atomic_file import write_atomically, write_folder_atomically
from .frame_stream import Frames, check_fps, open_frames, to_pictures
from .gif_blocks import (
    MAX_RATE,
    MAX_SIDE,
    TRAILER,
    build_frame,
    build_header,
    count_delays,
)
from .write_targets import resolve_file

PAPER, INK = (255, 255, 255), (60, 60, 60)


def write_gif(frames: Frames, path: str | Path, *, fps: float = 20.0) -> None:
    """Writes a clip that repeats for ever.

    Args:
        frames: T frames [H, W, 3], in one tensor or one by one.
        path: Where to.
        fps: Frames per second, at most 50. Times of frames are whole hundredths of a second, and
            their rounding does not add up.

    Raises:
        ValueError: The rate is none of a .gif, or the frames are no pictures.
        OSError: The file cannot be written.
    """
    check_gif_rate(fps)
    resolve_file(path)
    (width, height), pictures = open_frames(frames)
    if max(width, height) > MAX_SIDE:
        raise ValueError(
            f"`frames` must be at most {MAX_SIDE} pixels wide and high in a .gif, got "
            f"{width} x {height}."
        )

    def encode(unfinished: Path) -> None:
        with unfinished.open("wb") as file:
            file.write(build_header(width, height))
            previous = None
            # The delays have no end.
            for picture, delay in zip(pictures, count_delays(fps), strict=False):
                pixels = np.asarray(picture)
                file.write(build_frame(pixels, previous, delay))
                previous = pixels
            file.write(TRAILER)

    write_atomically(path, encode)


def check_gif_rate(fps: float) -> None:
    """Refuses a rate that a .gif cannot have."""
    check_fps(fps)
    if fps > MAX_RATE:
        raise ValueError(
            f"`fps` must be at most {MAX_RATE:g} in a .gif, whose players slow down frames that "
            f"are shorter than 2/100 s, got {fps}; leave out frames, or write an .mp4."
        )


def write_png_folder(frames: Frames, path: str | Path) -> None:
    """Writes one PNG per frame: 00000.png and so on.

    Args:
        frames: T frames [H, W, 3], in one tensor or one by one.
        path: The folder, which is made. One that holds files already is refused.
    """

    def fill(folder: Path) -> None:
        for index, picture in enumerate(to_pictures(frames)):
            picture.save(folder / f"{index:05d}.png", format="PNG")

    write_folder_atomically(path, fill)


def write_contact_sheet(
    images: Tensor,
    path: str | Path,
    *,
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    gap: int = 4,
) -> None:
    """Writes a PNG of all images, row by row.

    Args:
        images: [K, H, W, 3]
        path: Where to.
        columns: Images per row; the default puts all of them in one row.
        labels: A caption under each image.
        gap: White between the images, pixels.
    """
    pictures = list(to_pictures(images))
    columns = len(pictures) if columns is None else columns
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1, got {columns}.")
    if labels is not None and len(labels) != len(pictures):
        raise ValueError(
            f"`labels` must hold one caption per image, got {len(labels)} for {len(pictures)}."
        )
    width, height = pictures[0].size
    font_size = max(10, width // 16)
    step_x, step_y = width + gap, height + gap + (2 * font_size if labels else 0)
    rows = ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * step_x - gap, rows * step_y - gap), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(font_size)
    for i, picture in enumerate(pictures):
        x, y = i % columns * step_x, i // columns * step_y
        sheet.paste(picture, (x, y))
        if labels is not None:
            middle = (x + width / 2, y + height + font_size)
            draw.text(middle, labels[i], fill=INK, font=font, anchor="mm")
    write_atomically(path, partial(sheet.save, format="PNG", optimize=True))
