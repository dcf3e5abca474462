# SPDX-License-Identifier: Apache-2.0
"""Pictures of a row as the files they are stored in, so that many people fit into memory."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import torch
from datasets import Dataset
from PIL import Image as PILImage
from torch import Tensor

from .rows import picture_tensor

KINDS = ("portraits", "views")


@dataclass(frozen=True, eq=False)
class StoredPictures:
    """Pictures of one size; only those that are asked for are decoded, as often as they are."""

    files: tuple[bytes, ...]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """One picture, or those of a slice or of indices.

        Returns:
            sRGB with straight alpha. [H, W, 4] or [K, H, W, 4], uint8
        """
        chosen = torch.arange(len(self.files))[index]
        if not chosen.ndim:
            return self._decode(int(chosen))
        if not len(chosen):
            return torch.zeros(0, self.height, self.width, 4, dtype=torch.uint8)
        return torch.stack([self._decode(number) for number in chosen.tolist()])

    def _decode(self, number: int) -> Tensor:
        with PILImage.open(BytesIO(self.files[number])) as image:
            return (255 * picture_tensor(image)).round().to(torch.uint8)


def undecoded(rows: Dataset) -> Dataset:
    """The pictures of a data set for `read_pictures`."""
    # Arrow's own rows: a cast of the columns would write a copy of the data set.
    return rows.select_columns(list(KINDS)).with_format("arrow")


def read_pictures(pictures: Dataset, number: int) -> dict[str, tuple[bytes, ...]]:
    """The files of a row, as they are.

    Args:
        pictures: From `undecoded`.
        number: Of the row.
    """
    table = pictures[number]
    return {kind: tuple(file["bytes"] for file in table[kind][0].as_py()) for kind in KINDS}
