# SPDX-License-Identifier: Apache-2.0
"""The layout of a cloud that is written in tokens."""

from __future__ import annotations

import math

from torch import Tensor

from ..rigs.cloud_layout import OFF_SURFACE, count_layout
from ..rigs.head_rig import HeadRig
from .tokenization_points import PointTokenizer

ROUNDING = 2 * math.sqrt(3)  # of half a bin: skin in coarse bins does not stand off


def count_sequence_layout(
    input_ids: Tensor, tokenizer: PointTokenizer, rig: HeadRig, betas: Tensor, size: int
) -> Tensor:
    """How many points of a sequence stand off the skin, cell by cell, see `rigs.cloud_layout`.

    Args:
        input_ids: Of one cloud. [L]
        tokenizer: That encoded it.
        rig: Of its bindings.
        betas: Of the person. [S]
        size: Cells along an edge of the cube.

    Returns:
        [size, size^2]
    """
    half_bin = tokenizer.cube_half_extent / tokenizer.num_bins
    return count_layout(
        tokenizer.decode_points(input_ids),
        rig,
        betas,
        size,
        cube_center=tokenizer.cube_center,
        cube_half_extent=tokenizer.cube_half_extent,
        tolerance=max(OFF_SURFACE, ROUNDING * half_bin),
    )
