# SPDX-License-Identifier: Apache-2.0
"""A photograph in the frame of its head, with what is known about it: the input of this room."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ..geometry.structures import Cameras, RigParams, TensorRecord
from ..portraits.portrait import Portrait
from .distance_maps import shrink_mask
from .soft_rims import carry_outwards

OUTER_CANTHI, BROWS = (33, 263), (105, 334)  # of the 468 landmarks
EDGE = 2  # pixels along a border of the photograph that are left out


@dataclass(frozen=True)
class PortraitView(TensorRecord):
    """One photograph, cropped to the head and resampled."""

    image: Tensor  # [H, W, 3] sRGB
    foreground: Tensor  # [H, W, 3] the same, the subject's colours carried over the matte's border
    matte: Tensor  # [H, W] 1 on the subject
    inside: Tensor  # [H, W] whether the photograph reaches that far
    landmarks: Tensor  # [468, 2] pixels of the frame, the centre of the first at 0.5
    irises: Tensor  # [2, 5, 2] pixels, the subject's left then right
    cameras: Cameras  # one
    rig_params: RigParams  # one frame

    @property
    def eye_distance(self) -> float:
        """Between the outer canthi, pixels."""
        right, left = self.landmarks[list(OUTER_CANTHI)]
        return float((right - left).norm())


def frame_portrait(
    portrait: Portrait, cameras: Cameras, rig_params: RigParams, *, size: int = 384
) -> PortraitView:
    """The head of a photograph as a square picture.

    Args:
        portrait: As tracked.
        cameras: The one of the photograph, in its own pixels.
        rig_params: One frame, as fitted.
        size: Side of the frame, pixels.

    Raises:
        ValueError: There is not exactly one camera and one frame.
    """
    if len(cameras) != 1 or len(rig_params) != 1:
        raise ValueError(
            "`cameras` and `rig_params` must be those of one photograph, got "
            f"{len(cameras)} and {len(rig_params)}; frame the photographs one by one."
        )
    left, top = (math.floor(float(edge)) for edge in portrait.frame[:2])
    side = max(8, math.ceil(float((portrait.frame[2:] - portrait.frame[:2]).max())))
    scale = size / side
    planes = torch.cat([portrait.pixels.float() / 255, portrait.matte[..., None]], dim=-1)
    framed = _resample(_cut(planes, left, top, side), size)
    image, matte = framed[..., :3], framed[..., 3]
    whole = torch.ones_like(portrait.matte) if portrait.inside is None else portrait.inside
    inside = _resample(_cut(whole.float()[..., None], left, top, side, fill=0.0), size)
    # The last pixels of a photograph, and of a matte still more, are of no use.
    inside = shrink_mask(inside[..., 0] > 0.5, EDGE)
    matte = matte * inside
    origin = portrait.landmarks.new_tensor([left, top])
    shift = torch.tensor([[scale, 0, -scale * left], [0, scale, -scale * top], [0, 0, 1]])
    return PortraitView(
        image=image,
        foreground=carry_outwards(image, matte),
        matte=matte,
        inside=inside,
        landmarks=(portrait.landmarks[:, :2] - origin) * scale,
        irises=(portrait.irises - origin) * scale,
        cameras=replace(cameras, Ks=shift.to(cameras.Ks) @ cameras.Ks, width=size, height=size),
        rig_params=rig_params,
    )


def _cut(planes: Tensor, left: int, top: int, side: int, fill: float | None = None) -> Tensor:
    """A square of the picture; beyond its edges they are repeated, or filled. [side, side, K]"""
    height, width = planes.shape[:2]
    rows, columns = torch.arange(top, top + side), torch.arange(left, left + side)
    square = planes[rows.clamp(0, height - 1)][:, columns.clamp(0, width - 1)]
    if fill is None:
        return square
    beyond = ((rows < 0) | (rows >= height))[:, None] | ((columns < 0) | (columns >= width))
    return square.masked_fill(beyond[..., None], fill)


def _resample(square: Tensor, size: int) -> Tensor:
    """[S, S, K] -> [size, size, K], in the range of the picture"""
    # The filter takes what is beyond the edge for absent and is renormalised there.
    planes = interpolate(
        square.permute(2, 0, 1)[None], (size, size), mode="bicubic", antialias=True
    )
    return planes[0].permute(1, 2, 0).clamp(0, 1)


def metres_per_pixel(view: PortraitView) -> float:
    """At the distance of the head."""
    depth = view.cameras.viewmats[0, 2, :3] @ view.rig_params.transl[0]
    depth = depth + view.cameras.viewmats[0, 2, 3]
    return float(depth / view.cameras.Ks[0, 0, 0])


def sample_picture(picture: Tensor, pixels: Tensor) -> Tensor:
    """The picture at places between its pixels, bilinear; beyond its edges they are repeated.

    Args:
        picture: [H, W, K]
        pixels: The centre of the first at 0.5. [N, 2]

    Returns:
        [N, K]
    """
    height, width = picture.shape[:2]
    padded = pad(picture.permute(2, 0, 1)[None], (0, 1, 0, 1), mode="replicate")[0].permute(1, 2, 0)
    x = (pixels[:, 0] - 0.5).clamp(0, width - 1)
    y = (pixels[:, 1] - 0.5).clamp(0, height - 1)
    column, row = x.floor().long(), y.floor().long()
    u, v = (x - column)[:, None], (y - row)[:, None]
    above = torch.lerp(padded[row, column], padded[row, column + 1], u)
    below = torch.lerp(padded[row + 1, column], padded[row + 1, column + 1], u)
    return torch.lerp(above, below, v)
