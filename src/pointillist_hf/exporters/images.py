# SPDX-License-Identifier: Apache-2.0
"""Rendered frames as files to look at: an animated GIF, a folder of PNGs, or one with all of them.

Frames are sRGB in [0, 1]; values beyond are cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil, inf
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..geometry.structures import check_shape
from .atomic_file import write_atomically, write_folder_atomically

PAPER, INK = (255, 255, 255), (60, 60, 60)


def write_gif(frames: Tensor, path: str | Path, *, fps: float = 20.0) -> None:
    """Writes a clip that repeats for ever.

    Args:
        frames: [T, H, W, 3]
        path: Where to.
        fps: Frames per second; the format rounds the time of a frame to 1/100 s.
    """
    check_fps(fps)
    first, *others = to_pictures(frames)
    save = partial(
        first.save,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=round(1000 / fps),
        loop=0,
    )
    write_atomically(path, save)


def write_png_folder(frames: Tensor, path: str | Path) -> None:
    """Writes one PNG per frame: 00000.png and so on.

    Args:
        frames: [T, H, W, 3]
        path: The folder, which is made. One that holds files already is refused.
    """
    pictures = to_pictures(frames)

    def fill(folder: Path) -> None:
        for index, picture in enumerate(pictures):
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
    pictures = to_pictures(images)
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


def check_fps(fps: float) -> None:
    """Refuses a rate of frames that is none."""
    if not 0 < fps < inf:
        raise ValueError(f"`fps` must be positive, got {fps}.")


def to_pictures(frames: Tensor) -> list[Image.Image]:
    """The frames as 8-bit pictures. [T, H, W, 3]"""
    check_shape("frames", frames, (None, None, None, 3))
    if len(frames) == 0:
        raise ValueError("`frames` must hold at least one picture, got none.")
    pixels = (255 * frames.detach().float().clamp(0, 1)).round().byte().cpu().numpy()
    return [Image.fromarray(one) for one in pixels]
