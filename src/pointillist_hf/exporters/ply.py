# SPDX-License-Identifier: Apache-2.0
"""The .ply of 3D Gaussian Splatting, and that of GaussianAvatars, whose splats ride on triangles.

Columns: x y z, nx ny nz (zero), f_dc_0..2 (colour as zeroth spherical harmonic), f_rest_* (higher
harmonics, channel by channel), opacity (logit), scale_0..2 (logarithm), rot_0..3 (wxyz). The files
of GaussianAvatars hold the same in the frames of the triangles, and binding_0, the face.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from ..geometry.bound_splats import OPACITY_EPS, SH_C0
from ..geometry.structures import BoundSplats, Gaussians
from .axes import turn_y_down
from .finite_splats import report_dropped, select_finite
from .ply_table import read_table, write_table

logger = logging.getLogger(__name__)

MEANS, NORMALS, SH_DC = ("x", "y", "z"), ("nx", "ny", "nz"), ("f_dc_0", "f_dc_1", "f_dc_2")
SCALES, QUATS = ("scale_0", "scale_1", "scale_2"), ("rot_0", "rot_1", "rot_2", "rot_3")
REQUIRED = (*MEANS, *SH_DC, "opacity", *SCALES, *QUATS)
BINDING = "binding_0"
MAX_SH_DEGREE = 3
LARGEST_LOGIT = math.log(1 / OPACITY_EPS - 1)


def write_ply(
    gaussians: Gaussians, path: str | Path, *, sh_degree: int = 0, y_down: bool = False
) -> None:
    """Writes splats; those with a value that is not finite are left out, and counted in the log.

    Args:
        gaussians: N splats.
        path: Where to.
        sh_degree: Of the harmonics, 0 to 3: readers that expect those of degree 3 get zeros.
        y_down: Whether to turn the splats to the axes of COLMAP, see `turn_y_down`.
    """
    kept = select_finite(gaussians)
    kept = turn_y_down(kept) if y_down else kept
    columns = _join_columns(
        means=kept.means,
        sh=_pad_sh(((kept.colors - 0.5) / SH_C0)[:, None], sh_degree),
        opacity_logits=torch.logit(kept.opacities, eps=OPACITY_EPS),
        log_scales=kept.scales.log(),
        quats=kept.quats,
    )
    write_table(columns, path)


def read_ply(path: str | Path) -> Gaussians:
    """Reads splats of this layout, with or without higher harmonics.

    Colours are the zeroth harmonic alone; a warning says when there are higher ones.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of another kind, is damaged, or is one of GaussianAvatars.
    """
    columns = _read_columns(path)
    if BINDING in columns:
        raise ValueError(
            f"`path` must be a .ply in world coordinates, and the splats of {path} are in the "
            "frames of triangles; read it with `read_bound_ply`."
        )
    sh = _read_sh(columns, path)
    if sh[:, 1:].any():
        logger.warning("The colours of %s depend on the view; only their mean is kept.", path)
    return Gaussians(
        means=_stack(columns, MEANS),
        quats=_stack(columns, QUATS),
        scales=_stack(columns, SCALES).exp(),
        opacities=torch.from_numpy(columns["opacity"]).sigmoid(),
        colors=sh[:, 0] * SH_C0 + 0.5,
    )


def write_bound_ply(splats: BoundSplats, path: str | Path, *, sh_degree: int | None = None) -> None:
    """Writes the file that GaussianAvatars calls point_cloud.ply.

    Splats with a value that is not finite are left out, and counted in the log.

    Args:
        splats: In the frames of their triangles.
        path: Where to.
        sh_degree: Of the file, filled up with zeros; GaussianAvatars expects 3 by default. None
            keeps the degree of the splats.
    """
    sh_degree = splats.sh_degree if sh_degree is None else sh_degree
    columns = _join_columns(
        means=splats.means,
        sh=_pad_sh(splats.sh, sh_degree),
        # Readers refuse infinite logits, which mean clear and opaque splats.
        opacity_logits=splats.opacity_logits.nan_to_num(torch.nan, LARGEST_LOGIT, -LARGEST_LOGIT),
        log_scales=splats.log_scales,
        quats=splats.quats,
    )
    columns[BINDING] = splats.bindings.cpu().numpy().astype(np.float32)
    is_finite = np.isfinite(np.stack(list(columns.values()))).all(axis=0)
    report_dropped(torch.from_numpy(is_finite))
    write_table({name: column[is_finite] for name, column in columns.items()}, path)


def read_bound_ply(path: str | Path, *, num_faces: int | None = None) -> BoundSplats:
    """Reads a .ply of GaussianAvatars, of any degree of harmonics.

    Args:
        path: The file.
        num_faces: Of the mesh: 10144 of FLAME with teeth, 9976 without. None checks no upper
            bound of the bindings.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of another kind, is damaged, holds no bindings, or such that are
            no faces.
    """
    columns = _read_columns(path)
    if BINDING not in columns:
        raise ValueError(
            f"`path` must hold the column {BINDING}, and {path} does not: it is an ordinary 3DGS "
            "file; read it with `read_ply`."
        )
    ids = columns[BINDING]
    high = math.inf if num_faces is None else num_faces
    is_face = (ids == np.floor(ids)) & (ids >= 0) & (ids < high)
    if not is_face.all():
        row = int(np.flatnonzero(~is_face)[0])
        faces = "0 upwards" if num_faces is None else f"0 to {num_faces - 1}"
        raise ValueError(
            f"`path` must bind splats to faces {faces}, and {path} has {ids[row]} in row {row} of "
            f"its column {BINDING}."
        )
    return BoundSplats(
        means=_stack(columns, MEANS),
        log_scales=_stack(columns, SCALES),
        quats=_stack(columns, QUATS),
        opacity_logits=torch.from_numpy(columns["opacity"]),
        sh=_read_sh(columns, path),
        bindings=torch.from_numpy(ids.astype(np.int64)),
    )


def _pad_sh(sh: Tensor, sh_degree: int) -> Tensor:
    """The harmonics with zeros up to a degree. [N, K, 3]"""
    own = math.isqrt(sh.shape[1]) - 1
    if sh_degree not in range(own, MAX_SH_DEGREE + 1):
        raise ValueError(
            f"`sh_degree` must be at least {own}, the degree of the splats, and at most "
            f"{MAX_SH_DEGREE}, got {sh_degree!r}."
        )
    padded = sh.new_zeros(len(sh), (sh_degree + 1) ** 2, 3)
    padded[:, : sh.shape[1]] = sh.detach()
    return padded


def _join_columns(
    *, means: Tensor, sh: Tensor, opacity_logits: Tensor, log_scales: Tensor, quats: Tensor
) -> dict[str, ndarray]:
    rest = sh[:, 1:].mT.flatten(1)  # channel by channel
    names = [*MEANS, *NORMALS, *SH_DC, *(f"f_rest_{i}" for i in range(rest.shape[1]))]
    names += ["opacity", *SCALES, *QUATS]
    parts = [means, torch.zeros_like(means), sh[:, 0], rest, opacity_logits[:, None]]
    parts += [log_scales, quats]
    values = torch.cat([part.detach().float().cpu() for part in parts], dim=-1)
    return dict(zip(names, values.T.numpy(), strict=True))


def _read_columns(path: str | Path) -> dict[str, ndarray]:
    """Those of splats; others are left out."""
    found = read_table(path)
    columns = {name: column for name, column in found.items() if _is_of_splats(name)}
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(
            f"`path` must be a .ply of 3D Gaussian Splatting, and {path} has no column "
            f"{', '.join(missing)}."
        )
    for name, column in columns.items():
        is_number = ~np.isnan(column) if name == "opacity" else np.isfinite(column)
        if not is_number.all():
            row = int(np.flatnonzero(~is_number)[0])
            raise ValueError(
                f"`path` must hold finite numbers, and {path} has {column[row]} in row {row} of "
                f"its column {name}."
            )
    return columns


def _is_of_splats(name: str) -> bool:
    return name in REQUIRED or name == BINDING or name.startswith("f_rest_")


def _read_sh(columns: dict[str, ndarray], path: str | Path) -> Tensor:
    """[N, K, 3]"""
    count = sum(name.startswith("f_rest_") for name in columns)
    num_harmonics = count // 3 + 1
    names = [f"f_rest_{i}" for i in range(count)]
    if count % 3 or math.isqrt(num_harmonics) ** 2 != num_harmonics or not {*names} <= {*columns}:
        raise ValueError(
            f"`path` must hold 0, 9, 24 or 45 columns f_rest_0, f_rest_1 and so on, and {path} "
            f"holds {count}."
        )
    rest = _stack(columns, names).unflatten(-1, (3, count // 3)).mT
    return torch.cat([_stack(columns, SH_DC)[:, None], rest], dim=1)


def _stack(columns: dict[str, ndarray], names: tuple[str, ...] | list[str]) -> Tensor:
    """[N, names]"""
    if not names:
        return torch.zeros(len(columns["x"]), 0)
    return torch.from_numpy(np.stack([columns[name] for name in names], axis=-1))
