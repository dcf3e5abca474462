# SPDX-License-Identifier: Apache-2.0
"""A triangle rasteriser for ground-truth images: depth, face and barycentric position by pixel.

World coordinates in metres, OpenCV cameras, pixel centres at +0.5, float64. Both sides of a face
are drawn. Nothing is clipped: a face with a corner nearer than MIN_DEPTH is left out whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..kernels.compilation import compile_kernel

MIN_DEPTH = 1e-3  # metres


@dataclass(frozen=True)
class MeshBuffers:
    """What each pixel sees of the meshes drawn so far."""

    depth: NDArray[np.float64]  # [H, W] metres along the viewing axis, inf where nothing is
    face_ids: NDArray[np.int64]  # [H, W] -1 where nothing is
    barycentric: NDArray[np.float64]  # [H, W, 3] perspective-correct, 0 where nothing is


def rasterize_mesh(
    vertices: ArrayLike,
    faces: ArrayLike,
    viewmat: ArrayLike,
    K: ArrayLike,
    width: int,
    height: int,
    buffers: MeshBuffers | None = None,
    face_offset: int = 0,
) -> MeshBuffers:
    """Buffers of the pixels of one camera.

    Args:
        vertices: World coordinates, metres. [V, 3]
        faces: Vertex indices. [F, 3]
        viewmat: World to camera. [4, 4]
        K: Pixels. [3, 3]
        width: Pixels.
        height: Pixels.
        buffers: Drawn INTO, against their depth, and returned; None starts empty ones.
        face_offset: Added to the face ids, to tell this mesh from those drawn before.

    Raises:
        ValueError: The buffers are of another size, or hold ids that this mesh would give out too.
    """
    vertices, faces = np.asarray(vertices, np.float64), np.ascontiguousarray(faces, np.int64)
    viewmat = np.asarray(viewmat, np.float64)
    if buffers is None:
        buffers = MeshBuffers(
            np.full((height, width), np.inf),
            np.full((height, width), -1, np.int64),
            np.zeros((height, width, 3)),
        )
    else:
        _check_buffers(buffers, (height, width), range(face_offset, face_offset + len(faces)))
    points = vertices @ viewmat[:3, :3].T + viewmat[:3, 3]
    # Points at depth 0 get non-finite pixels, and the kernel leaves their faces out.
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = (points @ np.asarray(K, np.float64).T)[:, :2] / points[:, 2:]
    depths = np.ascontiguousarray(points[:, 2])
    _draw_faces(
        pixels, depths, faces, face_offset, buffers.depth, buffers.face_ids, buffers.barycentric
    )
    return buffers


def _check_buffers(buffers: MeshBuffers, size: tuple[int, int], ids: range) -> None:
    if buffers.depth.shape != size:
        raise ValueError(f"`buffers` must be {size} pixels, got {buffers.depth.shape}.")
    if ((buffers.face_ids >= ids.start) & (buffers.face_ids < ids.stop)).any():
        raise ValueError(
            f"`buffers` already show faces between {ids.start} and {ids.stop - 1}; pass a "
            "`face_offset` beyond them."
        )


# No fast maths: ground truth shall not depend on the compiler.
@compile_kernel()
def _draw_faces(
    pixels: np.ndarray,
    depths: np.ndarray,
    faces: np.ndarray,
    face_offset: int,
    depth: np.ndarray,
    face_ids: np.ndarray,
    barycentric: np.ndarray,
) -> None:
    height, width = depth.shape
    for face in range(len(faces)):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        # Written so that NaN fails too.
        if not (depths[a] > MIN_DEPTH and depths[b] > MIN_DEPTH and depths[c] > MIN_DEPTH):
            continue
        ax, ay, bx, by = pixels[a, 0], pixels[a, 1], pixels[b, 0], pixels[b, 1]
        cx, cy = pixels[c, 0], pixels[c, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if not 0 < abs(area) < math.inf:
            continue
        # Clamped before the conversion: an int made from a float out of range is undefined.
        left = math.ceil(max(0.0, min(ax, bx, cx) - 0.5))
        right = math.floor(min(width - 1.0, max(ax, bx, cx) - 0.5))
        top = math.ceil(max(0.0, min(ay, by, cy) - 0.5))
        bottom = math.floor(min(height - 1.0, max(ay, by, cy) - 0.5))
        near_a, near_b, near_c = 1 / depths[a], 1 / depths[b], 1 / depths[c]
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                x, y = column + 0.5 - ax, row + 0.5 - ay
                weight_b = (x * (cy - ay) - (cx - ax) * y) / area
                weight_c = ((bx - ax) * y - x * (by - ay)) / area
                weight_a = 1 - weight_b - weight_c
                if weight_a < 0 or weight_b < 0 or weight_c < 0:
                    continue
                # 1/depth is what is linear on the image plane.
                here = 1 / (weight_a * near_a + weight_b * near_b + weight_c * near_c)
                if here < depth[row, column]:
                    depth[row, column], face_ids[row, column] = here, face + face_offset
                    barycentric[row, column, 0] = weight_a * near_a * here
                    barycentric[row, column, 1] = weight_b * near_b * here
                    barycentric[row, column, 2] = weight_c * near_c * here
