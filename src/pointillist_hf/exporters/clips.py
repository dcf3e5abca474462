# SPDX-License-Identifier: Apache-2.0
"""Clips by the suffix of their name: .gif, .mp4, or none for a folder of PNGs."""

from __future__ import annotations

from pathlib import Path

from .frame_stream import Frames, check_fps
from .images import check_gif_rate, write_gif, write_png_folder
from .splat_formats import SPLAT_WRITERS
from .video import check_even, find_ffmpeg, write_mp4
from .write_targets import resolve_file, resolve_new_folder

CLIP_SUFFIXES = (".gif", ".mp4")
PICTURES = ".png"


def check_clip(
    path: str | Path, *, width: int, height: int, fps: float = 25.0, frame_format: str = PICTURES
) -> None:
    """Refuses a clip that could not be written, before its frames are made.

    Args:
        path: Of the clip.
        width: Of its frames, pixels.
        height: Of its frames, pixels.
        fps: Frames per second; of a folder it has no meaning.
        frame_format: Of the files in a folder: .png, or a suffix of splats.

    Raises:
        ValueError: The suffix is none of a clip, or the format has no such rate, size or files.
        OSError: The target cannot be written.
        ImportError: The format is .mp4, and ffmpeg is missing.
    """
    suffix = Path(path).suffix
    if suffix not in ("", *CLIP_SUFFIXES):
        raise ValueError(
            f"`path` must end in one of {', '.join(CLIP_SUFFIXES)} or be a folder, got "
            f"{Path(path).name!r}."
        )
    if frame_format not in ((PICTURES,) if suffix else (PICTURES, *SPLAT_WRITERS)):
        raise ValueError(
            f"`frame_format` must be {PICTURES} or, of a folder, one of "
            f"{', '.join(SPLAT_WRITERS)}, got {frame_format!r} for {Path(path).name!r}."
        )
    check_fps(fps)
    if not suffix:
        resolve_new_folder(path)
        return
    if suffix == ".gif":
        check_gif_rate(fps)
    else:
        check_even(width, height)
        find_ffmpeg()
    resolve_file(path)


def write_clip(frames: Frames, path: str | Path, *, fps: float = 25.0) -> None:
    """Writes the frames in the format of the suffix, each as it comes."""
    suffix = Path(path).suffix
    if not suffix:
        write_png_folder(frames, path)
    elif suffix == ".gif":
        write_gif(frames, path, fps=fps)
    else:
        write_mp4(frames, path, fps=fps)
