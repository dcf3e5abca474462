# SPDX-License-Identifier: Apache-2.0
"""The blocks of an animated GIF (GIF89a), made frame by frame.

Pillow compresses each frame; the file around it is written here, because Pillow's own writer holds
all frames before it writes the first. A frame after the first holds the rectangle that changed,
with a colour table of its own, and is transparent where a pixel stays as it was.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from itertools import count

import numpy as np
from numpy import ndarray
from PIL import Image

LOOP_FOR_EVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
TRAILER = b"\x3b"
MAX_SIDE = 65535  # pixels
# Browsers play frames shorter than 2/100 s as if they lasted 10.
MAX_RATE = 50.0
CLEAR = 255  # index of the transparent colour
TABLE_SIZE_FLAGS = 0x80 | 7  # a local colour table, of 2^(7 + 1) colours
KEEP_FRAME, IS_CLEAR = 1 << 2, 1


def build_header(width: int, height: int) -> bytes:
    """What comes before the frames."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0) + LOOP_FOR_EVER


def count_delays(fps: float) -> Iterator[int]:
    """Hundredths of a second per frame: rounded, the rest carried to the next frame."""
    start = 0
    for index in count(1):
        end = int(100 * index / fps + 0.5)
        yield end - start
        start = end


def build_frame(pixels: ndarray, previous: ndarray | None, delay: int) -> bytes:
    """One frame.

    Args:
        pixels: sRGB bytes. [H, W, 3]
        previous: The frame before; None for the first.
        delay: Hundredths of a second.
    """
    if previous is None:
        is_kept = np.zeros(pixels.shape[:2], bool)
    else:
        is_kept = (pixels == previous).all(axis=-1)
    left, top, right, bottom = _find_box(~is_kept)
    patch = Image.fromarray(pixels[top:bottom, left:right]).quantize(
        CLEAR, dither=Image.Dither.NONE
    )
    indices = np.asarray(patch).copy()
    indices[is_kept[top:bottom, left:right]] = CLEAR
    table = bytes(patch.getpalette()).ljust(3 * (CLEAR + 1), b"\0")[: 3 * (CLEAR + 1)]
    flags = KEEP_FRAME | (IS_CLEAR if previous is not None else 0)
    control = b"\x21\xf9\x04" + struct.pack("<BHBB", flags, delay, CLEAR, 0)
    place = struct.pack("<HHHHB", left, top, right - left, bottom - top, TABLE_SIZE_FLAGS)
    return control + b"\x2c" + place + table + _compress(indices)


def _find_box(is_changed: ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what changed; one pixel where nothing did."""
    rows, columns = np.flatnonzero(is_changed.any(1)), np.flatnonzero(is_changed.any(0))
    if len(rows) == 0:
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _compress(indices: ndarray) -> bytes:
    """The pixel data of a frame, cut out of a GIF that Pillow writes of it alone."""
    stream = io.BytesIO()
    # As grey levels, so that Pillow leaves the indices as they are.
    Image.fromarray(indices).save(stream, "GIF", optimize=False, interlace=False)
    data = stream.getvalue()
    # A header of 13 bytes, a table of 256 colours, an image descriptor of 10, data, a trailer.
    return data[13 + 768 + 10 : -1]
