# SPDX-License-Identifier: Apache-2.0
"""Photographs -> framed portraits on a plain background, as the networks want them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin

from ..geometry.cameras import project_points
from ..geometry.number_checks import check_integer, check_number
from ..geometry.structures import Cameras
from ..guarded_push import GuardedPush
from .face_detection import FaceBox, crop_square, detect_faces, person_matte
from .picture_reading import PortraitInput, load_image
from .pixel_values import is_cut_out
from .portrait import Portrait
from .rotated_square import RotatedSquare

logger = logging.getLogger(__name__)

__all__ = ["PortraitImageProcessor", "PortraitInput", "load_image"]

MATTING_SIZE = 256
MAX_SIZE = 2**13
# The frame of the portraits that the networks learn from, on the head: its middle and its side.
FRAME_MIDDLE, FRAME_SIDE = (0.0, -0.03, 0.0), 0.4232  # metres


class PortraitImageProcessor(GuardedPush, ImageProcessingMixin):
    """Finds the face, frames head and shoulders, takes out the background, resizes, normalises.

    Args:
        size: Side of the result, pixels.
        image_mean: Subtracted, per channel; the default is DINOv2's.
        image_std: Divides, per channel.
        background: sRGB of the background in [0, 1].
        face_scale: Side of the frame in sides of the detected face.
        face_height: Height of the face's middle in the frame; 0 is the upper edge.
        detect_face: Whether to look for a face; without, the largest centred square is the frame.
        remove_background: Whether to replace the background; an alpha channel is used as it is.
        min_side: Smallest photograph that is taken, pixels.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  transformers' class attribute

    def __init__(
        self,
        size: int = 224,
        image_mean: list[float] | tuple[float, ...] = (0.485, 0.456, 0.406),
        image_std: list[float] | tuple[float, ...] = (0.229, 0.224, 0.225),
        background: list[float] | tuple[float, ...] = (0.93, 0.93, 0.94),
        face_scale: float = 2.7,
        face_height: float = 0.47,
        detect_face: bool = True,
        remove_background: bool = True,
        min_side: int = 64,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.size = check_integer("size", size, 1, MAX_SIZE)
        self.image_mean = _check_channels("image_mean", image_mean, -1, 2)
        self.image_std = _check_channels("image_std", image_std, 1e-6, 1e6)
        self.background = _check_channels("background", background, 0, 1)
        self.face_scale = check_number("face_scale", face_scale, 0, 100, above=True)
        self.face_height = check_number("face_height", face_height, -10, 10)
        for name, value in (("detect_face", detect_face), ("remove_background", remove_background)):
            if not isinstance(value, bool):
                raise ValueError(f"`{name}` must be true or false, got {value!r}.")
        self.detect_face, self.remove_background = detect_face, remove_background
        self.min_side = check_integer("min_side", min_side, 1, MAX_SIZE)

    def __call__(
        self,
        images: PortraitInput | list[PortraitInput],
        *,
        detect_face: bool | None = None,
        remove_background: bool | None = None,
    ) -> BatchFeature:
        """Pixel values of one photograph or of several.

        Args:
            images: PIL images, paths, arrays [H, W, 3] or tensors [3, H, W]; floats in [0, 1].
            detect_face: Overrides the processor's setting.
            remove_background: Overrides the processor's setting.

        Returns:
            `pixel_values` [B, 3, size, size].

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is no image, the image is too small, or it shows no face.
        """
        images = images if isinstance(images, list) else [images]
        if not images:
            raise ValueError("`images` must hold at least one portrait, got an empty list.")
        framed = [
            self.frame(
                load_image(image),
                detect_face=self.detect_face if detect_face is None else detect_face,
                remove_background=(
                    self.remove_background if remove_background is None else remove_background
                ),
            )
            for image in images
        ]
        return BatchFeature({"pixel_values": torch.stack([self.normalize(f) for f in framed])})

    def frame(
        self, image: Image.Image, *, detect_face: bool = True, remove_background: bool = True
    ) -> Image.Image:
        """The framed portrait on the plain background. -> RGB, size x size"""
        if min(image.size) < self.min_side:
            raise ValueError(
                f"`image` must be at least {self.min_side} pixels wide and high, "
                f"got {image.size[0]} x {image.size[1]}."
            )
        if image.has_transparency_data:
            is_matte = is_cut_out(np.asarray(image.convert("RGBA").getchannel("A")))
            image, remove_background = self._flatten(image), remove_background and not is_matte
        pixels = np.asarray(image.convert("RGB"))
        x, y, side = self._find_frame(pixels) if detect_face else _centred_square(pixels)
        if remove_background:
            square = crop_square(pixels, x, y, side, MATTING_SIZE)
            matte = person_matte(square)[..., None]
            backdrop = 255 * np.array(self.background, np.float32)
            square = np.round(square * matte + backdrop * (1 - matte)).astype(np.uint8)
            x, y, side, pixels = 0, 0, MATTING_SIZE, square
        return Image.fromarray(crop_square(pixels, x, y, side, self.size))

    def frame_head(
        self, portrait: Portrait, root_transform: Tensor, cameras: Cameras
    ) -> Image.Image:
        """The framed portrait of a head whose place is known, upright. -> RGB, size x size

        Args:
            portrait: The photograph and its matte.
            root_transform: Of the head's root joint, from rest into the world. [3, 4]
            cameras: One: the photograph's.
        """
        middle = root_transform @ root_transform.new_tensor([*FRAME_MIDDLE, 1.0])
        up = middle + 0.1 * root_transform[:, 1]
        places, depths = project_points(torch.stack([middle, up]), cameras)
        (x, y), (right, down) = places[0, 0].tolist(), (places[0, 1] - places[0, 0]).tolist()
        side = float(cameras.Ks[0, 0, 0]) * FRAME_SIDE / float(depths[0, 0])
        square = RotatedSquare(np.array([x, y]), side, math.atan2(right, -down), self.size)
        pixels = square.sample(portrait.pixels.numpy()).astype(np.float32)
        alpha = (255 * portrait.matte).round().to(torch.uint8).numpy()[..., None]
        matte = square.sample(alpha, beyond=0).reshape(self.size, self.size, 1) / np.float32(255)
        backdrop = 255 * np.array(self.background, np.float32)
        return Image.fromarray(np.round(pixels * matte + backdrop * (1 - matte)).astype(np.uint8))

    def normalize(self, image: Image.Image) -> Tensor:
        """Pixel values of a framed portrait. [3, H, W]"""
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
        mean, std = torch.tensor(self.image_mean), torch.tensor(self.image_std)
        return (pixels - mean[:, None, None]) / std[:, None, None]

    def _flatten(self, image: Image.Image) -> Image.Image:
        color = tuple(round(255 * c) for c in self.background)
        backdrop = Image.new("RGBA", image.size, (*color, 255))
        return Image.alpha_composite(backdrop, image.convert("RGBA")).convert("RGB")

    def _find_frame(self, pixels: np.ndarray) -> tuple[float, float, float]:
        faces = detect_faces(pixels)
        if not faces:
            raise ValueError(
                "`image` must show an upright face from the front, and none was found. "
                "Crop the picture to head and shoulders and pass detect_face=False to use it as "
                "it is."
            )
        if len(faces) > 1:
            logger.warning("%d faces were found; the largest is used.", len(faces))
        return self._frame_of(faces[0])

    def _frame_of(self, face: FaceBox) -> tuple[float, float, float]:
        side = self.face_scale * face.side
        x, y = face.center
        return x - side / 2, y - self.face_height * side, side


def _check_channels(name: str, values: Sequence[float], low: float, high: float) -> list[float]:
    """One number per channel."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != len("rgb"):
        raise ValueError(f"`{name}` must be three numbers, got {values!r}.")
    return [check_number(name, value, low, high) for value in values]


def _centred_square(pixels: np.ndarray) -> tuple[float, float, float]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    return (width - side) / 2, (height - side) / 2, side
