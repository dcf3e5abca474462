# SPDX-License-Identifier: Apache-2.0
"""What the numbers of a picture mean: depth, range, colour profile and alpha, all made 8-bit sRGB.

Linear light is not told from sRGB where no profile says so; floats are taken for sRGB in [0, 1].
"""

from __future__ import annotations

import io
import logging

import numpy as np
from PIL import Image, ImageCms

logger = logging.getLogger(__name__)

WIDE_GREYS = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
# A picture of 16 bits whose brightest value is below this share of the range, a sixteenth, holds
# numbers of 12 bits or fewer.
LEAST_BRIGHTEST = 4096
# A channel of transparency is a cut-out when at least this share of the picture is cut away.
MIN_CUT_AWAY = 0.01
# Colour spaces of profiles and the modes that they can be for.
PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
SRGB = ImageCms.createProfile("sRGB")


def to_srgb(image: Image.Image) -> Image.Image:
    """The picture in 8 bits per channel and sRGB; RGBA where something is cut out, else RGB.

    Raises:
        ValueError: Its numbers are not in the range of their depth.
    """
    profile = image.info.get("icc_profile")
    if image.mode in WIDE_GREYS:
        image = narrow_grey(image)
    image, alpha = _split(image)
    return _join(_to_rgb(image, profile), alpha)


def narrow_grey(image: Image.Image) -> Image.Image:
    """A grey picture of more than 8 bits, or of floats, in 8 bits. -> L

    Raises:
        ValueError: Its values are beyond the range, or use a small part of it.
    """
    values = np.asarray(image)
    if image.mode == "F":
        _check_floats(values)
        return Image.fromarray(np.round(255 * values).astype(np.uint8))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"16 bits hold 0 to 65535, and this has {low} to {high}")
    if 0 < high < LEAST_BRIGHTEST:
        raise ValueError(
            f"it has 16 bits per channel and its brightest value is {high} of 65535, as if it held "
            "fewer bits; stretch it to the full range, or save it with 8 bits"
        )
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def from_array(array: np.ndarray) -> Image.Image:
    """The picture of an array [H, W, 3] or [H, W, 4], uint8 or floats in [0, 1].

    Raises:
        ValueError: The array has another shape, type or range.
    """
    if array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        raise ValueError(
            "`image` must have shape (H, W, 3) as an array or (3, H, W) as a tensor, "
            f"got {array.shape} as an array."
        )
    if np.issubdtype(array.dtype, np.floating):
        try:
            _check_floats(array)
        except ValueError as error:
            raise ValueError(f"`image` must hold floats in [0, 1]: {error}.") from error
        array = np.round(255 * array.astype(np.float32))
    elif array.dtype != np.uint8:
        raise ValueError(f"`image` must hold uint8 or floats, got {array.dtype}.")
    image = Image.fromarray(np.ascontiguousarray(array.astype(np.uint8)))
    return to_srgb(image)


def is_cut_out(alpha: np.ndarray) -> bool:
    """Whether an alpha channel says what belongs to the person. [H, W] of 0 to 255"""
    return bool(MIN_CUT_AWAY <= (alpha < 128).mean() < 1)


def _check_floats(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError("its values must be finite, and there are NaN or infinite ones")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"floats must lie in [0, 1], got values outside of it, {low:g} to {high:g}; divide by "
            "the largest possible value"
        )


def _split(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """The colours as the file has them, and alpha [H, W] if there is any."""
    if not image.has_transparency_data:
        return (image.convert("RGB") if image.mode in ("P", "YCbCr", "HSV") else image), None
    is_grey = image.mode in ("L", "LA", "La")
    rgba = image.convert("RGBA")
    alpha = np.asarray(rgba.getchannel("A"))
    return (rgba.getchannel("R") if is_grey else rgba.convert("RGB")), alpha


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, lab, SRGB, outputMode="RGB")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    if not profile:
        return image.convert("RGB")
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = own.profile.xcolor_space.strip()
        is_srgb = "srgb" in (own.profile.profile_description or "").lower()
        if is_srgb and image.mode == "RGB":
            return image
        if PROFILE_MODES.get(space) != image.mode:
            raise ImageCms.PyCMSError(f"it is for {space}, and the picture is {image.mode}")
        return ImageCms.profileToProfile(image, own, SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logger.warning("The colour profile is left out, colours are taken for sRGB: %s", error)
        return image.convert("RGB")


def _join(image: Image.Image, alpha: np.ndarray | None) -> Image.Image:
    image = image.copy()
    image.info.pop("icc_profile", None)  # the colours are sRGB from here on
    if alpha is not None and alpha.min() < 255:
        image.putalpha(Image.fromarray(alpha))
    return image
