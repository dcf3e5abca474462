# SPDX-License-Identifier: Apache-2.0
"""glTF 2.0 in one binary file, with the ratified extension KHR_gaussian_splatting.

Viewers without the extension show a cloud of coloured points. glTF's axes are ours.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch.nn.functional import normalize

from ..geometry.bound_splats import SH_C0
from ..geometry.structures import Gaussians
from .atomic_file import write_atomically
from .finite_splats import select_finite
from .splat import to_bytes

EXTENSION = "KHR_gaussian_splatting"
MAGIC, VERSION, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
FLOAT, UNSIGNED_BYTE, ARRAY_BUFFER, POINTS = 5126, 5121, 34962, 0
TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def write_glb(gaussians: Gaussians, path: str | Path) -> None:
    """Writes splats; those with a value that is not finite are left out, and counted in the log.

    Raises:
        ValueError: No splat is left: glTF knows no empty arrays.
    """
    kept = select_finite(gaussians)
    if len(kept) == 0:
        raise ValueError("`gaussians` must hold at least one finite splat for a .glb, got none.")
    attributes = _build_attributes(kept)
    views, accessors, body = [], [], b""
    for name, array in attributes.items():
        accessor = {
            "bufferView": len(views),
            "componentType": UNSIGNED_BYTE if array.dtype == np.uint8 else FLOAT,
            "count": len(array),
            "type": TYPES[array.shape[1]],
        }
        if array.dtype == np.uint8:
            accessor["normalized"] = True
        if name == "POSITION":
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        accessors.append(accessor)
        view = {"buffer": 0, "byteOffset": len(body), "byteLength": array.nbytes}
        views.append(view | {"target": ARRAY_BUFFER})
        body += array.tobytes()
    description = {
        "asset": {"version": "2.0", "generator": "pointillist_hf"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [_describe_primitive(attributes)]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }
    data = _join_chunks(json.dumps(description, allow_nan=False).encode("utf-8"), body)
    write_atomically(path, lambda partial: partial.write_bytes(data))


def _build_attributes(gaussians: Gaussians) -> dict[str, ndarray]:
    colors = gaussians.colors.clamp(0, 1)
    # The points of viewers without the extension are in linear light.
    linear = torch.where(colors > 0.04045, ((colors + 0.055) / 1.055) ** 2.4, colors / 12.92)
    opacities = gaussians.opacities[:, None]
    floats = {
        "POSITION": gaussians.means,
        f"{EXTENSION}:ROTATION": normalize(gaussians.quats, dim=-1)[:, [1, 2, 3, 0]],  # xyzw
        f"{EXTENSION}:SCALE": gaussians.scales,
        f"{EXTENSION}:OPACITY": opacities,
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": (gaussians.colors - 0.5) / SH_C0,
    }
    arrays = {
        name: np.ascontiguousarray(values.detach().float().cpu().numpy(), "<f4")
        for name, values in floats.items()
    }
    return arrays | {"COLOR_0": to_bytes(255 * torch.cat([linear, opacities], dim=-1))}


def _describe_primitive(attributes: dict[str, ndarray]) -> dict[str, object]:
    return {
        "mode": POINTS,
        "attributes": {name: index for index, name in enumerate(attributes)},
        "extensions": {EXTENSION: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}},
    }


def _join_chunks(description: bytes, body: bytes) -> bytes:
    description += b" " * (-len(description) % 4)
    body += bytes(-len(body) % 4)
    chunks = struct.pack("<II", len(description), JSON_CHUNK) + description
    chunks += struct.pack("<II", len(body), BINARY_CHUNK) + body
    return struct.pack("<III", MAGIC, VERSION, 12 + len(chunks)) + chunks
