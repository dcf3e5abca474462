# SPDX-License-Identifier: Apache-2.0
"""Niantic's .spz, versions 2 and 3: attributes one after the other, quantised, in a gzip stream.

Its axes are x right, y up, z towards the viewer, which for a face that looks along +z are ours.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.bound_splats import SH_C0
from ..geometry.rotations import quat_multiply
from ..geometry.structures import Gaussians
from .atomic_file import write_atomically
from .finite_splats import select_finite
from .splat import to_bytes

MAGIC = 0x5053474E
VERSIONS = (2, 3)  # they differ in the rotations
POSITION_BITS = 24  # signed fixed point
MAX_FRACTION_BITS = 16  # 0.015 mm; the reference library writes 12
COLOR_SCALE = 0.15  # of the zeroth harmonic
QUAT_BITS = 9  # of each of the three smallest components, beside its sign


def write_spz(gaussians: Gaussians, path: str | Path, *, version: int = 3) -> None:
    """Writes splats; those with a value that is not finite are left out, and counted in the log.

    Sizes are exact to 3 %, colours to 1 %, rotations to 0.2 degrees, in version 2 to 1.5.

    Args:
        gaussians: N splats.
        path: Where to.
        version: 2 for readers from before 2025, a byte per splat smaller; or 3.

    Raises:
        ValueError: A splat is more than eight thousand kilometres from the origin, or the version
            is another.
    """
    if version not in VERSIONS:
        raise ValueError(f"`version` of a .spz must be 2 or 3, got {version!r}.")
    kept = select_finite(gaussians)
    reach = float(kept.means.abs().max()) if len(kept) else 0.0
    # A position of `reach` may not round up to the sign bit.
    room = POSITION_BITS - 1 - math.ceil(math.log2(max(reach, 1.0) + 1))
    fraction_bits = min(MAX_FRACTION_BITS, room)
    if fraction_bits < 0:
        raise ValueError(
            f"`gaussians` must lie within {2**POSITION_BITS // 2} m of the origin in a .spz, got "
            f"{reach:.3g} m."
        )
    header = struct.pack("<IIIBBBB", MAGIC, version, len(kept), 0, fraction_bits, 0, 0)
    harmonics = (kept.colors - 0.5) / SH_C0
    attributes = [
        _pack_positions(kept.means, fraction_bits),
        to_bytes(255 * kept.opacities),
        to_bytes(255 * (COLOR_SCALE * harmonics + 0.5)),
        to_bytes(16 * (kept.scales.log() + 10)),
        (_pack_quats if version == 3 else _pack_vectors)(normalize(kept.quats, dim=-1)),
    ]
    data = header + b"".join(attribute.tobytes() for attribute in attributes)
    # Without a time, so that the same avatar is the same file.
    stream = gzip.compress(data, mtime=0)
    write_atomically(path, lambda partial: partial.write_bytes(stream))


def _pack_positions(means: Tensor, fraction_bits: int) -> ndarray:
    """Three bytes per coordinate, the lowest first. [N, 3, 3]"""
    fixed = (means.detach().double() * 2**fraction_bits).round().to(torch.int32).cpu().numpy()
    return fixed.astype("<i4").view(np.uint8).reshape(-1, 3, 4)[..., :3]


def _pack_quats(quats: Tensor) -> ndarray:
    """Which of x, y, z, w is largest, then sign and size of the others: 2 + 3 * 10 bits. [N]"""
    xyzw = quats.detach().double().cpu().numpy()[:, [1, 2, 3, 0]]
    largest = np.abs(xyzw).argmax(axis=1)
    # The largest is made positive and left out: the others are at most 1/sqrt(2).
    xyzw = xyzw * np.where(np.take_along_axis(xyzw, largest[:, None], axis=1) < 0, -1, 1)
    sizes = (np.abs(xyzw) * math.sqrt(2) * (2**QUAT_BITS - 1)).round().astype(np.uint32)
    signed = sizes | ((xyzw < 0).astype(np.uint32) << QUAT_BITS)
    packed = largest.astype(np.uint32)
    for component in range(4):
        appended = (packed << (QUAT_BITS + 1)) | signed[:, component]
        packed = np.where(largest == component, packed, appended)
    return packed.astype("<u4")


def _pack_vectors(quats: Tensor) -> ndarray:
    """A byte for each of x, y, z, of a quaternion whose w is not negative. [N, 3]

    Readers derive w, which is uncertain when it is small. A splat is the same after half a turn
    around one of its own axes, so the turn is taken that makes w the largest number.
    """
    half_turns = torch.eye(4).to(quats)[quats.abs().argmax(dim=-1)]
    turned = quat_multiply(quats, half_turns)
    upper = torch.where(turned[:, :1] < 0, -turned, turned)
    return to_bytes(127.5 + 127.5 * upper[:, 1:])
