# SPDX-License-Identifier: Apache-2.0
"""Faces are told how many points to expect about them.

The conditioning tokens have the layout of a cloud too, but a network with a few layers hardly
learns to look up there, for each of thousands of faces, the one cell that it is in. Beyond the
paper.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from .configuration_point_generator import ANCHOR_SIZE, PointGeneratorConfig

UNKNOWN = -1.0  # where nothing is foreseen; known values are 0 or more


def append_layouts(
    face_anchors: Tensor, layouts: Tensor | None, config: PointGeneratorConfig
) -> Tensor:
    """What anchored bindings are known by: where faces lie, and how much stands on them.

    Args:
        face_anchors: Of `HeadRig.face_anchors`. [B, F, 6]
        layouts: Points in the cells of a cube, see `rigs.cloud_layout`; None where nobody foresees
            any. [B, L, L^2]
        config: Of the generator. The layout is read at its `layout_heights`, H places along the
            normal of each face.

    Returns:
        The anchors with log(1 + number) at these places, between cells in proportion
        [B, F, 6 + H]; as they are for a generator without `layout_heights`.
    """
    heights = config.layout_heights
    if heights is None:
        return face_anchors
    if layouts is None:
        return pad(face_anchors, (0, len(heights)), value=UNKNOWN)
    centers, normals = face_anchors.split(ANCHOR_SIZE // 2, dim=-1)
    steps = centers.new_tensor(heights)[:, None]
    places = centers[:, :, None] + steps * normals[:, :, None]  # [B, F, H, 3]
    coords = (places - centers.new_tensor(config.cube_center)) / config.cube_half_extent
    # The volume lies by y, z, x; `grid_sample` wants its last axis first.
    volume = layouts.to(face_anchors).log1p().unflatten(-1, (layouts.shape[1],) * 2)[:, None]
    coords = coords[..., [0, 2, 1]][:, None]
    with torch.autocast(coords.device.type, enabled=False):
        known = grid_sample(volume, coords, padding_mode="border", align_corners=False)
    return torch.cat([face_anchors, known[:, 0, 0]], dim=-1)


def hide_layouts(face_anchors: Tensor) -> Tensor:
    """The same faces, with nothing foreseen about them. [B, F, 6 or more]"""
    anchors, known = face_anchors[..., :ANCHOR_SIZE], face_anchors[..., ANCHOR_SIZE:]
    return torch.cat([anchors, torch.full_like(known, UNKNOWN)], dim=-1)
