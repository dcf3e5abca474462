# SPDX-License-Identifier: Apache-2.0
"""The faces of a rig's named regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .head_rig import HeadRig


def find_region_faces(rig: HeadRig, names: Sequence[str]) -> Tensor:
    """Faces whose corners all lie in one of the regions. [F]

    Raises:
        ValueError: The rig has no region of that name, or none at all.
    """
    if not hasattr(rig, "mask"):
        raise ValueError(
            f"`rig` must have regions such as {', '.join(names)}; a {type(rig).__name__} has none."
        )
    found = torch.zeros(rig.num_faces, dtype=torch.bool)
    for name in names:
        inside = torch.zeros(len(rig.v_template), dtype=torch.bool)
        inside[rig.mask(name)] = True
        found |= inside[rig.faces].all(1)
    return found
