# SPDX-License-Identifier: Apache-2.0
"""One web page with an avatar that moves: no network, no server, opens from disk.

The page carries the avatar as compressed tables, see `page_tables`. Its program lies beside this
file in `viewer/`: `unpack.js` reads the tables, `rig.js` moves the points, `splats.js` draws them,
`page.js` is the page.
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

import torch
from torch import Tensor

from ..geometry.structures import Gaussians, RigParams
from ..rigs.binding import check_bindings
from ..rigs.head_rig import HeadRig
from .atomic_file import write_atomically
from .finite_splats import find_writable
from .packed_arrays import pack_tables
from .page_tables import STEPS, tabulate_avatar, tabulate_motion

logger = logging.getLogger(__name__)

SCRIPTS = ("unpack.js", "rig.js", "splats.js", "page.js")
BOUND_NOTICE = (
    "This page carries skinning weights and expression directions of a head model that is under a "
    "licence of its own. Share it only if that licence allows it."
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
    check_bindings(bindings, rig.num_faces)
    if motion is not None:
        _check_motion(motion, fps, rig)
    if not rig.may_be_shared:
        logger.warning("%s", BOUND_NOTICE)
    is_writable = find_writable(gaussians)
    tables = tabulate_avatar(gaussians[is_writable], bindings[is_writable], rig, betas)
    if motion is not None:
        tables |= tabulate_motion(motion)
    body, entries = pack_tables(tables, STEPS)
    header = {
        "parents": rig.parents.tolist(),
        "expression_names": list(rig.expression_names),
        "has_names": not rig.expression_names[0].startswith("expression_"),
        "notice": "" if rig.may_be_shared else BOUND_NOTICE,
        "fps": None if motion is None else fps,
        "tables": entries,
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
