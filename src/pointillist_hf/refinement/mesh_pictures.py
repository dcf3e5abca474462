# SPDX-License-Identifier: Apache-2.0
"""Meshes drawn into a photograph's camera as tensors, and pictures looked up at points."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.structures import Cameras, RigParams
from ..rendering.mesh import rasterize_mesh
from ..rigs.head_rig import HeadRig


def draw_mesh(vertices: Tensor, faces: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """What the one camera sees of a mesh, drawn by the CPU.

    Args:
        vertices: In the world, metres. [V, 3]
        faces: [F, 3]
        cameras: One.

    Returns:
        Depths, metres, inf where nothing is [H, W]; face ids, -1 where nothing is [H, W].
    """
    buffers = rasterize_mesh(
        vertices.numpy(force=True),
        faces.numpy(force=True),
        cameras.viewmats[0].numpy(force=True),
        cameras.Ks[0].numpy(force=True),
        cameras.width,
        cameras.height,
    )
    depths, face_ids = torch.from_numpy(buffers.depth), torch.from_numpy(buffers.face_ids)
    return depths.float().to(vertices.device), face_ids.to(vertices.device)


def draw_rig(rig: HeadRig, rig_params: RigParams, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Depths and face ids of the posed rig. [H, W] each, as of `draw_mesh`"""
    return draw_mesh(rig(rig_params)[0], rig.faces, cameras)


def at_pixels(picture: Tensor, pixels: Tensor) -> Tensor:
    """The value of the pixel that each point falls on, or of the nearest one.

    Args:
        picture: [H, W]
        pixels: The centre of the first at 0.5. [N, 2]

    Returns:
        [N]
    """
    height, width = picture.shape
    places = pixels.floor().long()
    return picture[places[:, 1].clamp(0, height - 1), places[:, 0].clamp(0, width - 1)]


def is_in_frame(pixels: Tensor, cameras: Cameras, margin: float = 0.0) -> Tensor:
    """Points that fall into the picture, so many pixels from its edge. [N]"""
    limits = pixels.new_tensor([cameras.width, cameras.height]) - margin
    return ((pixels >= margin) & (pixels < limits)).all(-1)
