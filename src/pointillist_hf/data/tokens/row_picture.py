# SPDX-License-Identifier: Apache-2.0
"""A row of a tokenised data set as a picture: its portraits, and its points from three sides."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ...exporters.atomic_file import write_atomically
from ...geometry.cameras import orbit_cameras
from ...geometry.structures import CanonicalPoints, Gaussians
from ...rendering.rasterize import rasterize
from .dataset import open_tokenizer
from .rows import picture_tensor

AZIMUTHS = (0.0, 60.0, 180.0)
POINT_RADIUS = 0.0012  # metres
GOLDEN_RATIO = 0.6180339887498949


def draw_row(row: dict[str, object], folder: str | Path, path: str | Path) -> None:
    """Writes a .png of a row: portraits above, the decoded tokens below, a colour for each face.

    Args:
        row: Of the data set.
        folder: Of the data set, for its tokenizer.
        path: Where to.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"`path` must end in .png, got {path.name!r}.")
    tokenizer = open_tokenizer(folder)
    points = tokenizer.decode_points(torch.tensor(row["input_ids"]))
    portraits = [picture_tensor(image) for image in row["portraits"]][: len(AZIMUTHS)]
    size = portraits[0].shape[0]
    on_white = [image[..., :3] * image[..., 3:] + 1 - image[..., 3:] for image in portraits]
    on_white += [torch.ones(size, size, 3)] * (len(AZIMUTHS) - len(on_white))
    rows = [torch.cat(on_white, dim=1), torch.cat([*draw_points(points, size)], dim=1)]
    pixels = (255 * torch.cat(rows)).round().clamp(0, 255).to(torch.uint8).numpy()
    image = Image.fromarray(pixels)
    write_atomically(path, lambda partial: image.save(partial, "PNG"))


def draw_points(points: CanonicalPoints, size: int) -> Tensor:
    """Pictures of a cloud from three sides, each face with its own colour. [3, size, size, 3]"""
    count = len(points)
    # Multiples of the golden ratio keep the hues of neighbouring faces apart.
    hues = (points.bindings * GOLDEN_RATIO) % 1
    waves = (hues[:, None] + torch.tensor([0.0, 1 / 3, 2 / 3])) * 2 * torch.pi
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    gaussians = Gaussians(
        means=points.means,
        quats=quats,
        scales=torch.full((count, 3), POINT_RADIUS),
        opacities=torch.full((count,), 0.95),
        colors=0.45 + 0.4 * waves.cos(),
    )
    cameras = orbit_cameras(AZIMUTHS, width=size, height=size, fov=22.0)
    return rasterize(gaussians, cameras, backgrounds=torch.ones(len(AZIMUTHS), 3))[0]
