# SPDX-License-Identifier: Apache-2.0
"""Rendered frames as an MP4 that browsers and phones play: H.264, by ffmpeg."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .atomic_file import write_atomically
from .images import check_fps, to_pictures

QUALITY = 8  # of 10


def write_mp4(frames: Tensor, path: str | Path, *, fps: float = 25.0) -> None:
    """Writes a clip.

    Args:
        frames: sRGB, values beyond [0, 1] are cut off; even height and width, as H.264 halves the
            resolution of colours. [T, H, W, 3]
        path: Where to.
        fps: Frames per second.

    Raises:
        ImportError: `imageio-ffmpeg`, which brings ffmpeg, is not installed.
        ValueError: The frames have an odd side, or the rate is not positive.
    """
    check_fps(fps)
    pictures = to_pictures(frames)
    size = pictures[0].size
    if size[0] % 2 or size[1] % 2:
        raise ValueError(
            f"`frames` must have even height and width in an .mp4, got {size[1]} x {size[0]}; "
            "render them one pixel larger."
        )
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ImportError(
            "Writing .mp4 needs ffmpeg: `pip install pointillist_hf[video]`; .gif needs nothing."
        ) from error

    def encode(partial: Path) -> None:
        # The partial file's suffix does not tell ffmpeg the format, and the size stays as it is.
        encoder = imageio_ffmpeg.write_frames(
            partial, size, fps=fps, codec="libx264", quality=QUALITY, macro_block_size=1,
            ffmpeg_log_level="error", output_params=["-f", "mp4", "-movflags", "+faststart"],
        )  # fmt: skip
        encoder.send(None)
        try:
            for picture in pictures:
                encoder.send(picture.tobytes())
        finally:
            encoder.close()

    write_atomically(path, encode)
