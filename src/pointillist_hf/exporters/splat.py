# SPDX-License-Identifier: Apache-2.0
"""The .splat of antimatter15's viewer: 32 bytes per splat, no header, colours without direction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import normalize

from ..geometry.structures import Gaussians
from .atomic_file import write_atomically
from .axes import turn_y_down
from .finite_splats import select_finite

LAYOUT = np.dtype(
    [
        ("position", "<f4", 3),  # metres
        ("scale", "<f4", 3),  # metres
        ("color", "u1", 4),  # sRGB and opacity
        ("rotation", "u1", 4),  # wxyz, -1 .. 1 as 0 .. 256
    ]
)


def write_splat(gaussians: Gaussians, path: str | Path, *, y_down: bool = False) -> None:
    """Writes splats; those with a value that is not finite are left out, and counted in the log.

    Args:
        gaussians: N splats.
        path: Where to.
        y_down: Whether to turn them to the axes of most viewers of .splat, see `turn_y_down`.
    """
    kept = select_finite(gaussians)
    kept = turn_y_down(kept) if y_down else kept
    rows = np.empty(len(kept), LAYOUT)
    rows["position"] = kept.means.detach().float().cpu().numpy()
    rows["scale"] = kept.scales.detach().float().cpu().numpy()
    rows["color"] = to_bytes(255 * torch.cat([kept.colors, kept.opacities[:, None]], dim=-1))
    rows["rotation"] = to_bytes(128 + 128 * normalize(kept.quats, dim=-1))
    data = rows.tobytes()
    write_atomically(path, lambda partial: partial.write_bytes(data))


def to_bytes(values: Tensor) -> ndarray:
    """Rounded, and cut off at 0 and 255."""
    return values.detach().float().round().clamp(0, 255).byte().cpu().numpy()
