# SPDX-License-Identifier: Apache-2.0
"""The head's own vertices as a cloud: what a decoder has without a generator (paper Sec. 5.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.structures import CanonicalPoints
from .head_rig import HeadRig


@torch.no_grad()
def build_template_points(rig: HeadRig, betas: Tensor) -> CanonicalPoints:
    """The vertices of a person's head at rest, each bound to the first of its faces.

    Vertices without a face are left out. The cloud has as many points for everybody, and no hair.

    Args:
        rig: Of the head.
        betas: Identity coefficients of one person. [S]
    """
    corners = rig.faces.flatten()
    face_ids = torch.arange(rig.num_faces, device=corners.device).repeat_interleave(3)
    none = corners.new_full((len(rig.v_template),), rig.num_faces)
    first = none.scatter_reduce(0, corners, face_ids.to(none.dtype), "amin")
    has_face = first < rig.num_faces
    vertices = rig.canonical_vertices(betas[None].to(rig.v_template))[0]
    return CanonicalPoints(vertices[has_face], first[has_face])
