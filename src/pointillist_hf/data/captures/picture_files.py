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
from ...portraits.picture_reading import read_mask, read_picture

CACHE_SIZE = 2**29  # bytes of pictures that are kept in memory
WHITE = 255


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
        pixels = read_mask(path) if self.is_mask else _lay_on_white(read_picture(path))
        height, width, _ = self.shape
        if pixels.size != (width, height):
            raise ValueError(
                f"{path} must be {width} x {height} pixels as its camera says, got "
                f"{pixels.size[0]} x {pixels.size[1]}."
            )
        array = np.array(pixels)
        return torch.from_numpy(array.reshape(self.shape))


def _lay_on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    back = Image.new("RGBA", image.size, (WHITE, WHITE, WHITE, WHITE))
    return Image.alpha_composite(back, image).convert("RGB")
