# SPDX-License-Identifier: Apache-2.0
"""Pictures on disk as a sequence of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...geometry.structures import Cameras

CACHE_SIZE = 2**29  # bytes of pictures that are kept in memory
WHITE = 255
# Each of these is what PIL says of some damaged file.
DAMAGE = (OSError, SyntaxError, ValueError, OverflowError, Image.DecompressionBombError)


class PictureFiles(Sequence):
    """Pictures [H, W, 3], or masks [H, W, 1], with values in [0, 1].

    The first ones that fit into half a GiB stay in memory once they are read.

    Args:
        paths: Files; None is a mask that covers the whole picture.
        cameras: Whose size they have.
        is_mask: Grey instead of RGB. What has an alpha channel is laid on white.
    """

    def __init__(self, paths: Sequence[Path | None], cameras: Cameras, *, is_mask: bool) -> None:
        self.paths, self.is_mask = tuple(paths), is_mask
        self.shape = (cameras.height, cameras.width, 1 if is_mask else 3)
        self._kept: dict[int, Tensor] = {}
        self._room = CACHE_SIZE

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        if index not in self._kept:
            pixels = self._read(self.paths[index])
            if self._room < pixels.numel():
                return pixels.float() / 255
            self._room -= pixels.numel()
            self._kept[index] = pixels
        return self._kept[index].float() / 255

    def _read(self, path: Path | None) -> Tensor:
        if path is None:
            return torch.full(self.shape, 255, dtype=torch.uint8)
        try:
            with Image.open(path) as image:
                if image.mode[0] in "IF":
                    raise ValueError(
                        f"it must have 8 bits per channel, and is of mode {image.mode}"
                    )
                pixels = _lay_on_white(image) if not self.is_mask else image.convert("L")
                array = np.array(pixels)
        except DAMAGE as error:
            raise ValueError(f"{path} cannot be read as a picture: {error}.") from error
        return torch.from_numpy(array.reshape(self.shape))


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, by its header.

    Raises:
        ValueError: It is no picture.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except DAMAGE as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}.") from error


def _lay_on_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    back = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE, WHITE))
    return Image.alpha_composite(back, image.convert("RGBA")).convert("RGB")
