# SPDX-License-Identifier: Apache-2.0
"""One web page with an avatar that moves: no network, no server, opens from disk.

The page carries, per splat, what Eq. 5 of the paper needs (rest place, skinning weights, expression
directions) and what drawing needs. Its program lies beside this file in `viewer/`: `rig.js` moves
the points, `splats.js` draws them, `page.js` is the page.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import math
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..geometry.rotations import quat_to_matrix
from ..geometry.structures import CanonicalPoints, Gaussians, RigParams
from ..rigs.binding import bind_points
from ..rigs.head_rig import HeadRig
from .atomic_file import write_atomically
from .finite_splats import find_writable

logger = logging.getLogger(__name__)

SCRIPTS = ("rig.js", "splats.js", "page.js")
# Directions are metres per unit; as 16-bit integers they are exact to a ten-thousandth of the
# largest, and half as large.
COMPRESSED = ("exprdirs", "posedirs")
ALIGNMENT = 4  # bytes, of arrays in the page
BOUND_NOTICE = (
    "The points carry skinning weights and expression directions interpolated from a head model "
    "that is under a licence of its own. Share this page only if that licence allows it."
)


def write_page(
    gaussians: Gaussians,
    bindings: Tensor,
    rig: HeadRig,
    betas: Tensor,
    path: str | Path,
    *,
    title: str = "avatar",
    motion: RigParams | None = None,
    fps: float = 25.0,
) -> None:
    """Writes the page. Splats with a value that is not finite are left out, and counted in the log.

    Args:
        gaussians: Canonical. [N]
        bindings: Face of each. [N]
        rig: The rig of the bindings.
        betas: Identity coefficients. [S]
        path: Where to.
        title: Of the page.
        motion: Frames that it plays from the start.
        fps: Of the motion, frames per second.
    """
    if motion is not None:
        _check_motion(motion, fps, rig)
    if not rig.may_be_shared:
        logger.warning("%s", BOUND_NOTICE)
    is_writable = find_writable(gaussians)
    arrays = _pack_points(gaussians[is_writable], bindings[is_writable], rig, betas)
    body, entries = _join_arrays(arrays)
    header = {
        "num_points": len(arrays["opacities"]),
        "parents": rig.parents.tolist(),
        "expression_names": list(rig.expression_names),
        "has_names": not rig.expression_names[0].startswith("expression_"),
        "notice": "" if rig.may_be_shared else BOUND_NOTICE,
        "motion": None if motion is None else _describe_motion(motion, fps),
        "arrays": entries,
    }
    viewer = files(__package__) / "viewer"
    parts = {
        "title": html.escape(title),
        "style": (viewer / "page.css").read_text("utf-8"),
        # A name in it must not end the script element.
        "header": json.dumps(header, allow_nan=False).replace("<", "\\u003c"),
        "data": base64.b64encode(body).decode("ascii"),
        "script": "\n".join((viewer / name).read_text("utf-8") for name in SCRIPTS),
    }
    page = (viewer / "page.html").read_text("utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], page)
    write_atomically(path, lambda partial: partial.write_text(page, "utf-8"))


def _check_motion(motion: RigParams, fps: float, rig: HeadRig) -> None:
    rig.check_params(motion)
    if not 0 < fps < math.inf:
        raise ValueError(f"`fps` must be positive, got {fps}.")
    values = torch.cat([motion.expression, motion.poses.flatten(1), motion.transl], dim=-1)
    if len(motion) == 0 or not values.isfinite().all():
        raise ValueError("`motion` must hold at least one frame, and finite numbers only.")


def _pack_points(
    gaussians: Gaussians, bindings: Tensor, rig: HeadRig, betas: Tensor
) -> dict[str, np.ndarray]:
    """Everything that the page knows of the points and joints, float32."""
    rest = rig.canonical_vertices(betas[None])[0]
    bound = bind_points(CanonicalPoints(gaussians.means, bindings), rig, rest)
    spread = quat_to_matrix(gaussians.quats) * gaussians.scales[:, None, :]
    covariances = spread @ spread.mT
    rows, columns = torch.triu_indices(3, 3)
    tensors = {
        "rest": gaussians.means,
        "rest_covariances": covariances[:, rows, columns],
        "colors": gaussians.colors,
        "opacities": gaussians.opacities,
        "lbs_weights": bound.lbs_weights,
        "exprdirs": bound.exprdirs,
        "joints": rig.J_regressor @ rest,
        "joint_dirs": torch.einsum("jv,vce->jce", rig.J_regressor, rig.exprdirs),
    }
    if rig.posedirs.any():
        tensors["posedirs"] = bound.posedirs
    return {name: t.detach().float().cpu().numpy() for name, t in tensors.items()}


def _join_arrays(arrays: dict[str, np.ndarray]) -> tuple[bytes, list[dict[str, object]]]:
    """All arrays as little-endian bytes, and where each lies."""
    body, entries = b"", []
    for name, array in arrays.items():
        entry = {"name": name, "start": len(body), "length": int(array.size)}
        if name in COMPRESSED:
            entry["scale"] = max(float(np.abs(array).max(initial=0)), 1e-12) / 32767
            array = np.round(array / entry["scale"]).astype("<i2")
        body += np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        body += bytes(-len(body) % ALIGNMENT)
        entries.append(entry)
    return body, entries


def _describe_motion(motion: RigParams, fps: float) -> dict[str, object]:
    frames = [
        {"expression": expression, "poses": poses, "translation": translation}
        for expression, poses, translation in zip(
            motion.expression.tolist(), motion.poses.tolist(), motion.transl.tolist(), strict=True
        )
    ]
    return {"fps": fps, "frames": frames}
