# SPDX-License-Identifier: Apache-2.0
"""Rendered frames as an MP4 that browsers and phones play: H.264, by ffmpeg."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from PIL import Image

from .atomic_file import write_atomically
from .frame_stream import Frames, check_fps, open_frames
from .write_targets import resolve_file

CONSTANT_RATE_FACTOR = 10  # 0 is without loss, 51 worst
MAX_DENOMINATOR = 1_000_000  # of the rate as a fraction: 30000/1001 stays what it is
SHOWN_WORDS = 60  # of what ffmpeg says when it fails, the last ones


def write_mp4(frames: Frames, path: str | Path, *, fps: float = 25.0) -> None:
    """Writes a clip.

    Args:
        frames: T frames [H, W, 3], in one tensor or one by one; sRGB, values beyond [0, 1] are cut
            off; even height and width, as H.264 halves the resolution of colours.
        path: Where to.
        fps: Frames per second.

    Raises:
        ImportError: `imageio-ffmpeg`, which brings ffmpeg, is not installed.
        ValueError: The frames have an odd side, or the rate is none.
        OSError: The file cannot be written, or ffmpeg fails; an earlier file stays.
    """
    check_fps(fps)
    ffmpeg = find_ffmpeg()
    resolve_file(path)
    (width, height), pictures = open_frames(frames)
    check_even(width, height)
    rate = Fraction(fps).limit_denominator(MAX_DENOMINATOR)
    command = [
        ffmpeg, "-y", "-v", "error",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate),
        "-i", "-",
        "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(CONSTANT_RATE_FACTOR),
        # The partial file's suffix does not tell ffmpeg the format.
        "-f", "mp4", "-movflags", "+faststart",
    ]  # fmt: skip
    write_atomically(path, lambda partial: _encode(pictures, [*command, str(partial)], path))


def check_even(width: int, height: int) -> None:
    """Refuses pictures with an odd side."""
    if width % 2 or height % 2:
        raise ValueError(
            f"`frames` must have even height and width in an .mp4, got {height} x {width}; "
            "render them one pixel larger."
        )


def find_ffmpeg() -> str:
    """The program.

    Raises:
        ImportError: It is not there.
    """
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            "Writing .mp4 needs ffmpeg: `pip install pointillist_hf[video]`; .gif needs nothing."
        ) from error


def _encode(pictures: Iterable[Image.Image], command: list[str], path: str | Path) -> None:
    """Feeds the pictures to ffmpeg, and looks at how it ends."""
    with tempfile.TemporaryFile() as messages:
        encoder = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            start_new_session=True,  # Ctrl-C is for us, who end it
        )
        try:
            with encoder.stdin as pipe:
                for picture in pictures:
                    pipe.write(picture.tobytes())
        except BrokenPipeError:
            pass  # it ended early; its exit code and message say why
        except BaseException:
            encoder.kill()
            raise
        finally:
            code = encoder.wait()
        messages.seek(0)
        said = messages.read().decode("utf-8", "replace").split()
    if code:
        end = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        reason = " ".join(said[-SHOWN_WORDS:]) or "it said nothing"
        raise OSError(
            f"`path` could not be written: ffmpeg, which encodes {path}, {end}: {reason}. See that "
            "the disk has room, and try again."
        )
