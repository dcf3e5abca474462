# SPDX-License-Identifier: Apache-2.0
"""The layout of a cloud that was read out of tokens."""

from __future__ import annotations

import math

from torch import Tensor

from ..geometry.structures import CanonicalPoints
from ..rigs.cloud_layout import OFF_SURFACE, count_cells, find_cells
from ..rigs.head_rig import HeadRig
from .tokenization_points import PointTokenizer

ROUNDING = 2 * math.sqrt(3)  # of half a bin: skin in coarse bins does not stand off


def find_decoded_cells(
    points: CanonicalPoints, tokenizer: PointTokenizer, rig: HeadRig, betas: Tensor, size: int
) -> Tensor:
    """In which cell each point stands off the skin, -1 where it does not, see `find_cells`. [N]

    Args:
        points: Of `decode_points`.
        tokenizer: That decoded them: skin in its bins lies beside the skin.
        rig: Of its bindings.
        betas: Of the person. [S]
        size: Cells along an edge of the cube.
    """
    half_bin = tokenizer.cube_half_extent / tokenizer.num_bins
    return find_cells(
        points,
        rig,
        betas,
        size,
        cube_center=tokenizer.cube_center,
        cube_half_extent=tokenizer.cube_half_extent,
        tolerance=max(OFF_SURFACE, ROUNDING * half_bin),
    )


def count_decoded_layout(
    points: CanonicalPoints, tokenizer: PointTokenizer, rig: HeadRig, betas: Tensor, size: int
) -> Tensor:
    """How many points stand off the skin in each cell, see `find_decoded_cells`. [size, size^2]"""
    cells = find_decoded_cells(points, tokenizer, rig, betas, size)
    return count_cells(cells, size)[0].to(points.means.dtype)
