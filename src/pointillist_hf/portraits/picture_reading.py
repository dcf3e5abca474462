# SPDX-License-Identifier: Apache-2.0
"""The one reader of pictures, for portraits and captures: upright, 8 bits, sRGB, the first frame.

Nothing that a file holds starts another program, and sizes are looked at before pixels are.
"""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor

from .pixel_values import WIDE_GREYS, from_array, narrow_grey, to_srgb

logger = logging.getLogger(__name__)

PortraitInput = Image.Image | str | Path | np.ndarray | Tensor
MAX_PIXELS = 2**28  # of a file that can be read reduced; others may have what PIL allows
MAX_READ_PIXELS = 2**26  # such files are halved until they have no more
# Formats whose pixels another program would draw, or that are no pictures.
REFUSED_FORMATS = {"EPS": "an EPS", "WMF": "a WMF", "MPEG": "a video", "FITS": "a FITS table"}
JPEG_START = b"\xff\xd8\xff"
# What cannot be read here, by what such files begin with, and what helps.
FOREIGN_FILES = (
    (b"version https://git-lfs", "it is a Git LFS pointer; fetch the file with `git lfs pull`"),
    (b"\xff\x0a", "it is JPEG XL; save it as PNG or JPEG"),
    (b"\x00\x00\x00\x0cJXL ", "it is JPEG XL; save it as PNG or JPEG"),
    (b"%PDF", "it is a PDF; save its picture as PNG or JPEG"),
    (b"<svg", "it is SVG, which is drawn and not stored; save it as PNG"),
    (b"<?xml", "it is XML; if it is an SVG, save it as PNG"),
    (b"<!DOCTYPE", "it is a web page; download the picture itself"),
    (b"<html", "it is a web page; download the picture itself"),
)
HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
HEIF_HELP = (
    "it is HEIC, which needs a plugin: pip install pillow-heif, call "
    "pillow_heif.register_heif_opener() first, or save the picture as JPEG"
)
# Each of these is what PIL says of some damaged file.
DAMAGE = (
    OSError, SyntaxError, ValueError, OverflowError, EOFError, IndexError, KeyError, TypeError,
    AttributeError, RuntimeError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


def load_image(image: PortraitInput) -> Image.Image:
    """The picture of whatever the user has: upright, sRGB; RGBA where something is see-through.

    Args:
        image: PIL image, path, array [H, W, 3 or 4] or tensor [3 or 4, H, W]; floats in [0, 1].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no picture, shows nothing, or an array has another shape or range.
        TypeError: It is none of the accepted kinds.
    """
    picture = _load_any(image)
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema()[1] == 0:
        raise ValueError("`image` must show something, and all of it is transparent.")
    return picture


def _load_any(image: PortraitInput) -> Image.Image:
    if isinstance(image, (str, Path)):
        return read_picture(image)
    if isinstance(image, Image.Image):
        try:
            return to_srgb(ImageOps.exif_transpose(image))
        except DAMAGE as error:
            raise ValueError(f"`image` must be a picture, and {_explain(error)}.") from error
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image
    if isinstance(image, np.ndarray):
        return from_array(image)
    raise TypeError(
        f"`image` must be a PIL image, a path, an array or a tensor, got {type(image).__name__}."
    )


def read_picture(path: str | Path, *, name: str = "image") -> Image.Image:
    """The picture of a file, as `load_image` has it. `name` is what messages call it."""
    path = Path(path)
    _check_file(path, name)
    try:
        with _open(path) as opened:
            opened.load()
            return to_srgb(ImageOps.exif_transpose(opened))
    except DAMAGE as error:
        raise _refusal(path, name, error) from error


def read_mask(path: str | Path, *, name: str = "mask") -> Image.Image:
    """How far each pixel of a mask's file belongs to the person, 255 being wholly. -> L

    Values that are 0 and 1 alone count as 0 and 255; what is transparent counts as 0.
    """
    path = Path(path)
    _check_file(path, name)
    try:
        with _open(path) as opened:
            opened.load()
            return _mask_values(ImageOps.exif_transpose(opened))
    except DAMAGE as error:
        raise _refusal(path, name, error) from error


def _mask_values(image: Image.Image) -> Image.Image:
    """Shares of 255, whatever the file counts in. -> L"""
    if image.mode in WIDE_GREYS:
        values = np.asarray(image).astype(np.float64)
        is_binary = values.min() >= 0 and values.max() <= 1
        return Image.fromarray(_to_bytes(values)) if is_binary else narrow_grey(image)
    if image.mode == "P" and not image.has_transparency_data:
        # The numbers are labels; their colours may be anything.
        labels = np.asarray(image)
        if labels.max() <= 1:
            return Image.fromarray(255 * labels)
    alpha = np.asarray(image.convert("RGBA").getchannel("A"), np.float64) / 255
    values = np.asarray(image.convert("RGB").convert("L"), np.float64)
    return Image.fromarray(_to_bytes(values * alpha / (255 if values.max() > 1 else 1)))


def read_picture_size(path: str | Path, *, name: str = "image") -> tuple[int, int]:
    """Width and height of the picture that `read_picture` gives, by the file's header."""
    path = Path(path)
    _check_file(path, name)
    try:
        with _open(path) as opened:
            is_turned = opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return opened.size[::-1] if is_turned else opened.size
    except DAMAGE as error:
        raise _refusal(path, name, error) from error


def _check_file(path: Path, name: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"`{name}` must be a file, and there is none at {path}.")


def _open(path: Path) -> Image.Image:
    """The file, opened but not decoded, at a size that may be decoded."""
    with path.open("rb") as file:
        start = file.read(len(JPEG_START))
    # Opened by its class: `Image.open` judges the size before it could be reduced.
    is_jpeg = start == JPEG_START
    image = JpegImagePlugin.JpegImageFile(path) if is_jpeg else Image.open(path)
    if image.format in REFUSED_FORMATS:
        kind = REFUSED_FORMATS[image.format]
        image.close()
        raise ValueError(f"it is {kind}, which is not read; save it as PNG or JPEG")
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise ValueError(
            f"it has {width} x {height} pixels, and at most {MAX_PIXELS / 1e6:.0f} million are "
            "read; make it smaller"
        )
    if is_jpeg and width * height > MAX_READ_PIXELS:
        _halve(image, path)
    return image


def _halve(image: JpegImagePlugin.JpegImageFile, path: Path) -> None:
    """Lets the decoder leave out rows and columns until the picture is small enough."""
    width, height = image.size
    divisor = 1
    while width * height > MAX_READ_PIXELS * divisor**2:
        divisor *= 2
    image.draft(None, (width // divisor, height // divisor))
    logger.warning(
        "%s has %d x %d pixels and is read as %d x %d.", path, width, height, *image.size
    )


def _to_bytes(shares: np.ndarray) -> np.ndarray:
    return np.round(255 * shares).astype(np.uint8)


def _refusal(path: Path, name: str, error: Exception) -> ValueError:
    reason = _explain(error)
    if isinstance(error, (UnidentifiedImageError, SyntaxError)):
        reason = _name_foreign(path) or "it is in no format that is known here; save it as PNG"
    return ValueError(f"`{name}` must be a picture, and {path} cannot be read: {reason}.")


def _explain(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"it is too large; make it smaller ({error})".rstrip(".")
    if isinstance(error, MemoryError):
        return "it does not fit into memory; make it smaller"
    return (str(error) or f"it is damaged ({type(error).__name__})").rstrip(".")


def _name_foreign(path: Path) -> str | None:
    """What the file is, where that is known to be no picture that can be read here."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "it is empty"
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        return HEIF_HELP
    trimmed = start.lstrip(b"\xef\xbb\xbf \r\n\t")
    found = [help for begin, help in FOREIGN_FILES if trimmed.lower().startswith(begin.lower())]
    return found[0] if found else None
