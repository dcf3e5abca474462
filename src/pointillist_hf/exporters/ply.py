# SPDX-License-Identifier: Apache-2.0
"""The .ply of 3D Gaussian Splatting: binary, little-endian, one float32 row per splat.

Columns: x y z, nx ny nz (zero), f_dc_0..2 (colour as zeroth spherical harmonic), opacity (logit),
scale_0..2 (logarithm), rot_0..3 (wxyz).
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from ..geometry.structures import Gaussians

logger = logging.getLogger(__name__)

SH_C0 = 0.28209479177387814  # zeroth spherical harmonic
COLUMNS = (
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
    "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip


def write_ply(gaussians: Gaussians, path: str | Path) -> None:
    """Writes splats; those with a value that is not finite are left out, and counted in the log."""
    columns = [
        gaussians.means,
        torch.zeros_like(gaussians.means),
        (gaussians.colors - 0.5) / SH_C0,
        torch.logit(gaussians.opacities, eps=1e-6)[:, None],
        gaussians.scales.log(),
        gaussians.quats,
    ]
    rows = torch.cat([column.detach().float().cpu() for column in columns], dim=-1).numpy()
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        logger.warning("%d splats with non-finite values were left out.", int((~finite).sum()))
    body = rows[finite].astype("<f4")
    properties = "".join(f"property float {name}\n" for name in COLUMNS)
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(body)}\n"
        f"{properties}end_header\n"
    )
    Path(path).write_bytes(header.encode("ascii") + body.tobytes())


def read_ply(path: str | Path) -> Gaussians:
    """Reads splats of this layout.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of another kind, has other columns, or is cut off.
    """
    data = Path(path).read_bytes()
    header, separator, body = data.partition(b"end_header\n")
    lines = header.decode("ascii", errors="replace").splitlines()
    names = tuple(line.split()[-1] for line in lines if line.startswith("property float "))
    counts = [int(line.split()[-1]) for line in lines if line.startswith("element vertex ")]
    is_binary = "format binary_little_endian 1.0" in lines
    if not separator or not is_binary or names != COLUMNS or len(counts) != 1:
        raise ValueError(f"`path` must be a binary 3DGS .ply of {len(COLUMNS)} columns: {path}.")
    if len(body) != counts[0] * len(COLUMNS) * 4:
        raise ValueError(
            f"`path` must hold {counts[0]} rows of {len(COLUMNS) * 4} bytes, got {len(body)} "
            f"bytes: {path} is cut off or damaged."
        )
    rows = torch.from_numpy(np.frombuffer(body, "<f4").reshape(-1, len(COLUMNS)).copy())
    return Gaussians(
        means=rows[:, :3],
        quats=rows[:, 13:17],
        scales=rows[:, 10:13].exp(),
        opacities=rows[:, 9].sigmoid(),
        colors=rows[:, 6:9] * SH_C0 + 0.5,
    )
