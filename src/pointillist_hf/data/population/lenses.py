# SPDX-License-Identifier: Apache-2.0
"""Lenses laid over a picture: what is behind them shows through, and they reflect a little.

Light is linear and premultiplied with its alpha here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...geometry.structures import Cameras
from ...rendering.mesh import rasterize_mesh
from .shading import Lighting, reflect_lights, to_light
from .solids import Solids, build_solids
from .strands import unit
from .subject import METRES_PER_CM
from .surface import interpolate
from .worn import Piece

NORMAL_REFLECTANCE = 0.04  # of glass, seen straight on
GRAZING_LIMIT = 0.4


def lay_lenses(
    light: np.ndarray,
    alpha: np.ndarray,
    depth: np.ndarray,
    lenses: Sequence[Piece],
    camera: Cameras,
    lighting: Lighting,
) -> None:
    """Lay posed lenses over samples, the farthest first.

    Args:
        light: Changed in place. [H W, 3]
        alpha: Changed in place. [H W]
        depth: Of what is opaque, metres. [H, W]
        lenses: Pieces of form "lens".
        camera: Of the samples, which may be finer than the picture's pixels.
        lighting: In world space.
    """
    viewmat = camera.viewmats[0].double().numpy(force=True)
    eye = -viewmat[:3, :3].T @ viewmat[:3, 3] / METRES_PER_CM
    distances = [np.linalg.norm(lens.lines.points.mean((0, 1)) - eye) for lens in lenses]
    for i in np.argsort(distances)[::-1]:
        solid = build_solids([lenses[i]])
        buffers = rasterize_mesh(
            METRES_PER_CM * solid.vertices,
            solid.faces,
            viewmat,
            camera.Ks[0].numpy(force=True),
            camera.width,
            camera.height,
        )
        seen = np.flatnonzero((buffers.depth < depth).ravel())
        corners = solid.faces[buffers.face_ids.ravel()[seen]]
        barycentric = buffers.barycentric.reshape(-1, 3)[seen].astype(np.float32)
        own, opacity = _lens_light(solid, corners, barycentric, eye, lenses[i].opacity, lighting)
        light[seen] = light[seen] * (1 - opacity[:, None]) + own
        alpha[seen] = alpha[seen] * (1 - opacity) + opacity


def _lens_light(
    solid: Solids,
    corners: np.ndarray,
    barycentric: np.ndarray,
    eye: np.ndarray,
    tint_opacity: float,
    lighting: Lighting,
) -> tuple[np.ndarray, np.ndarray]:
    """What samples of a lens add, premultiplied [n, 3], and how much they cover [n]."""
    values = interpolate(solid.columns, corners, barycentric)
    points, colors, normals, gloss = np.split(values, [3, 6, 9], axis=1)
    views, normals = unit(eye.astype(np.float32) - points), unit(normals)
    facing = np.einsum("nx,nx->n", normals, views)
    normals = normals * np.sign(facing)[:, None]
    mirror = NORMAL_REFLECTANCE + (1 - NORMAL_REFLECTANCE) * (1 - np.abs(facing)) ** 5
    mirror = np.minimum(mirror, GRAZING_LIMIT)
    sheen = reflect_lights(normals, views, gloss, lighting) + mirror[:, None] * lighting.ambient
    opacity = 1 - (1 - tint_opacity) * (1 - np.clip(np.maximum(sheen.max(1), mirror), 0, 1))
    tinted = tint_opacity * lighting.ambient * to_light(colors)
    return tinted + sheen, opacity
